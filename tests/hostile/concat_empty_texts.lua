-- An endless table of empty texts: it takes no memory.
-- expect: failed script.cpu attack.lua
return function()
  local empty = setmetatable({}, { __index = function() return "" end })
  return table.concat(empty, "", 1, math.maxinteger)
end
