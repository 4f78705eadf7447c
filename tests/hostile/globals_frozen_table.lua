-- A table that is a global, written by the functions that write raw.
-- expect: failed script.error
shared = { 1, 2, 3 }
return function()
  table.insert(shared, "leaked")
end
