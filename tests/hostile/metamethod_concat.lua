-- __concat that concatenates itself.
-- expect: failed script.error overflow
return function()
  local t = setmetatable({}, { __concat = function(a, b) return a .. b end })
  return t .. "x"
end
