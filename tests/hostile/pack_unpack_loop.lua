-- Long lists packed and unpacked for ever.
-- expect: failed script.cpu attack.lua:6
return function()
  local list = {}
  for i = 1, 200 do list[i] = i end
  while true do table.pack(table.unpack(list)) end
end
