-- table.remove, likewise.
-- expect: failed script.cpu attack.lua:5
return function()
  local liar = setmetatable({}, { __len = function() return math.maxinteger - 1 end })
  table.remove(liar, 1)
end
