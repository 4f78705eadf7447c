-- A __newindex function that assigns.
-- expect: failed script.error overflow
return function()
  local t = setmetatable({}, { __newindex = function(t, k, v) t[k + 1] = v end })
  t[1] = 1
end
