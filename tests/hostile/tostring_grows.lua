-- __tostring that gives more each time.
-- expect: failed script.cpu|script.memory
return function()
  local s = "x"
  local t = setmetatable({}, { __tostring = function() s = s .. s return s end })
  while true do tostring(t) end
end
