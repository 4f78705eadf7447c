-- Numbers of a megabyte.
-- expect: failed script.cpu attack.lua:5
return function()
  local digits = ("7"):rep(1 << 20)
  while true do tonumber(digits, 36) end
end
