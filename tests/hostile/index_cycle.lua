-- A table that is its own __index.
-- expect: failed script.error loop
return function()
  local t = {}
  setmetatable(t, t)
  t.__index = t
  return t.x
end
