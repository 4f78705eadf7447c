-- An __index function that indexes.
-- expect: failed script.error overflow
return function()
  local t = setmetatable({}, { __index = function(t, k) return t[k .. "x"] end })
  return t.x
end
