-- table.concat over a table that invents its members, and says that there are many.
-- expect: failed script.cpu|script.memory
return function()
  local liar = setmetatable({}, { __len = function() return 1 << 40 end,
    __index = function() return "xxxxxxxxxxxxxxxx" end })
  return table.concat(liar)
end
