-- Always in front of a long list: each call moves all of it, in C.
-- expect: failed script.cpu attack.lua:5
return function()
  local list = {}
  while true do table.insert(list, 1, 0) end
end
