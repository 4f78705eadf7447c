-- A class that is a global, changed through an object's metatable.
-- expect: failed script.error cannot be set after load
Class = {}
Class.__index = Class
return function()
  local object = setmetatable({}, Class)
  getmetatable(object).leaked = "secret"
end
