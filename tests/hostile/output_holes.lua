-- A table that had many names and has none now, over and over in what a step returns.
-- expect: failed script.cpu
local emptied = {}
for i = 1, 1 << 14 do emptied["k" .. i] = i end
for i = 1, 1 << 14 do emptied["k" .. i] = nil end
return function()
  local list = {}
  for i = 1, 80000 do list[i] = emptied end
  return list
end
