-- load is not there: neither text nor bytecode becomes code.
-- expect: failed script.error load is not available
return function()
  return load("\27Lua")
end
