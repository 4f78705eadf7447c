-- As many arguments as the stack takes.
-- expect: failed script.error attack.lua:4
return function()
  return string.char(table.unpack({}, 1, 100000000))
end
