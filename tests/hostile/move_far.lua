-- table.move over a range that takes for ever, through metamethods that keep nothing.
-- expect: failed script.cpu attack.lua:
return function()
  local void = setmetatable({}, { __newindex = function() end })
  table.move(void, 1, 1000000000000, 2)
end
