-- Always true: the sort runs past the ends of its list.
-- expect: failed script.error invalid order function
return function()
  local list = {}
  for i = 1, 100000 do list[i] = 1 end
  table.sort(list, function() return true end)
end
