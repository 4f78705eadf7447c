-- A finalizer, which would run outside every limit.
-- expect: failed script.error __gc is not available
return function()
  setmetatable({}, { __gc = function() while true do end end })
end
