-- _ENV is a local like any other: what it hides is hidden from this script alone.
-- expect: completed nil
return function()
  local _ENV = setmetatable({}, { __index = function() return nil end })
  return "nil"
end
