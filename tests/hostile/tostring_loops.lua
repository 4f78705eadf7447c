-- __tostring that never returns.
-- expect: failed script.cpu
return function()
  return tostring(setmetatable({}, { __tostring = function() while true do end end }))
end
