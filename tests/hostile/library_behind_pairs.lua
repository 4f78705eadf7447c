-- What lies behind a lock must not come out of its pairs.
-- expect: completed 0 written
return function()
  local written = 0
  for _, library in pairs { string, table, math, utf8 } do
    local _, real = pairs(library)
    for _, t in pairs { real, library } do
      if pcall(function() t.forged = true end) and library.forged then written = written + 1 end
      if pcall(table.insert, t, "forged") and library[1] then written = written + 1 end
    end
  end
  return written .. " written"
end
