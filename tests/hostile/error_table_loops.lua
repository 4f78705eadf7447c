-- An error whose __tostring never returns.
-- expect: failed script.cpu
return function()
  error(setmetatable({}, { __tostring = function() while true do end end }))
end
