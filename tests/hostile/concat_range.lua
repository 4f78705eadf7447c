-- table.concat with limits far outside the table.
-- expect: failed script.error attack.lua:4
return function()
  return table.concat({}, "", -1000000000, 1000000000)
end
