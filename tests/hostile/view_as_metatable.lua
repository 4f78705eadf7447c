-- What may only be looked at, reached as the metatable of another table.
-- expect: failed script.error cannot be set after load
Shared = { inner = { text = "as loaded" } }
return function()
  getmetatable(setmetatable({}, Shared.inner)).text = "told to all"
end
