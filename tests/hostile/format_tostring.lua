-- %s calls __tostring, which formats itself.
-- expect: failed script.error overflow
return function()
  local t = {}
  setmetatable(t, { __tostring = function(v) return ("%s"):format(v) end })
  return ("%s"):format(t)
end
