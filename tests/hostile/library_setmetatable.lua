-- Another metatable for a library.
-- expect: failed script.error protected
return function()
  setmetatable(math, {})
end
