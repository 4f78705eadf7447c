-- __eq that compares.
-- expect: failed script.error overflow
return function()
  local meta = { __eq = function(a, b) return a == b end }
  return setmetatable({}, meta) == setmetatable({}, meta)
end
