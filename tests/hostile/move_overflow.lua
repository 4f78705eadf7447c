-- Ranges whose length overflows.
-- expect: failed script.error attack.lua:4
return function()
  return table.move({}, math.mininteger, math.maxinteger, 1)
end
