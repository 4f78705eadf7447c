-- A chain of two thousand tables, each the __index of the next.
-- expect: failed script.error loop
return function()
  local t = {}
  for _ = 1, 2001 do t = setmetatable({}, { __index = t }) end
  return t.x
end
