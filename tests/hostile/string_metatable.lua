-- The metatable of all texts, and through it every script's string functions.
-- expect: completed nil
return function()
  return tostring(getmetatable(""))
end
