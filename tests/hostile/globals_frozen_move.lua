-- The same by table.move.
-- expect: completed 3
shared = { 1, 2, 3 }
return function()
  pcall(table.move, { "leaked" }, 1, 1, 4, shared)
  return #shared
end
