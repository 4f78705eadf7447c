-- The same by table.sort.
-- expect: completed 3
shared = { 3, 2, 1 }
return function()
  pcall(table.sort, shared)
  return shared[1]
end
