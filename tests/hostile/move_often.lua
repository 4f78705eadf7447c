-- table.move of just what is allowed, over and over.
-- expect: failed script.cpu attack.lua
return function()
  local void = setmetatable({}, { __newindex = function() end, __index = function() end })
  while true do table.move(void, 1, 999999, 2) end
end
