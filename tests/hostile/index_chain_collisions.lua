-- A chain of tables, each the __index of the next, and in each all names meet in one place.
-- expect: failed script.cpu
local NAMES = 256
local step, chain = NAMES - 1, nil
for _ = 1, 600 do
  local t = {}
  for i = 1, NAMES do t[-i * step] = true end
  chain = setmetatable(t, { __index = chain })
end
return function()
  local far = -1000000 * step
  while true do local _ = chain[far] end
end
