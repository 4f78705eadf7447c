-- table.insert, move and sort write raw: locked libraries must withstand them.
-- expect: completed string table
return function()
  pcall(table.move, { "x" }, 1, 1, 1, string)
  pcall(table.insert, string, 1, "x")
  pcall(table.sort, string)
  pcall(table.remove, string)
  return (string[1] == nil and "string" or "written") .. " "
    .. (#table == 0 and "table" or "written")
end
