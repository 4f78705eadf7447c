-- A table that is its own __index, and in which all names meet in one place.
-- expect: failed script.cpu
local NAMES = 1024
local step, t = 2 * NAMES - 1, {}
for i = 1, NAMES do t[-i * step] = true end
t.__index = t
setmetatable(t, t)
local function look_up() return t[-1000000 * step] end
return function()
  while true do pcall(look_up) end
end
