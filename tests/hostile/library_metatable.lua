-- The lock of a library is no metatable that a script could have.
-- expect: completed false
return function()
  return tostring(getmetatable(table))
end
