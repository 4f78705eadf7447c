-- debug is not there, which could reach every upvalue and metatable.
-- expect: failed script.error debug is not available
return function()
  return debug.getregistry()
end
