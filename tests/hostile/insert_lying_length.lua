-- table.insert shifts as many members as __len claims.
-- expect: failed script.cpu attack.lua:5
return function()
  local liar = setmetatable({}, { __len = function() return 1 << 50 end })
  table.insert(liar, 1, "x")
end
