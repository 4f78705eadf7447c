-- __lt and __le that never decide.
-- expect: failed script.cpu attack.lua:4
return function()
  local meta = { __lt = function() while true do end end }
  return setmetatable({}, meta) < setmetatable({}, meta)
end
