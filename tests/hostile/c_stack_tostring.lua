-- Recursion through tostring.
-- expect: failed script.error overflow
return function()
  local t = {}
  return tostring(setmetatable(t, { __tostring = tostring }))
end
