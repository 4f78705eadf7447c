-- A comparator that raises; the sort is tried again for ever.
-- expect: failed script.cpu
return function()
  local list = { 3, 1, 2 }
  while true do pcall(table.sort, list, error) end
end
