-- Thousands of arguments, and numbers that are no characters.
-- expect: failed script.error attack.lua:4
return function()
  return utf8.char(-1)
end
