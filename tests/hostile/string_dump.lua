-- Bytecode of a function.
-- expect: failed script.error string.dump is not available
return function()
  return string.dump(function() end)
end
