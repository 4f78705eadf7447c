-- %f and sets with thousands of members.
-- expect: failed script.cpu attack.lua:6
return function()
  local set = "[" .. ("ab"):rep(20000) .. "]"
  local s = ("c"):rep(100000)
  return s:find("%f" .. set .. "x"), s:find(set)
end
