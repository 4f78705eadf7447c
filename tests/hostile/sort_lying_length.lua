-- A table that says it has a billion members.
-- expect: failed script.cpu attack.lua
return function()
  local liar = setmetatable({}, { __len = function() return 1000000000 end,
    __index = function(_, k) return -k end, __newindex = function() end })
  table.sort(liar)
end
