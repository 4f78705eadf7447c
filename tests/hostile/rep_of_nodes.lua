-- A text of just the size that a table's names would have is a text.
-- expect: completed
return function()
  assert(#("x"):rep(3 << 19) == 3 << 19)
end
