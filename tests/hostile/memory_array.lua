-- One big array: its last doubling asks for all at once.
-- expect: failed script.cpu|script.memory
return function()
  local t = {}
  for i = 1, 1e9 do t[i] = i end
end
