-- A long list, sorted in C by comparing texts that differ in their last byte.
-- expect: failed script.cpu
return function()
  local common, list = ("x"):rep(4000), {}
  for i = 1, 300 do list[i] = common .. (i * 7919 % 300) end
  for i = 301, 40000 do list[i] = list[i % 300 + 1] end
  while true do table.sort(list) end
end
