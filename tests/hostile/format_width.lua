-- Formats that are wider than allowed, and texts for %s that are not.
-- expect: failed script.error attack.lua:4
return function()
  return ("%099999d"):format(1)
end
