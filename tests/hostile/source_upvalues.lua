-- More upvalues than a closure may have.
-- as: source
-- expect: refused script.invalid attack.lua
local lines = {}
for i = 1, 150 do lines[i] = "local v" .. i .. " = 1" end
lines[#lines + 1] = "return function()"
for i = 1, 150 do lines[#lines + 1] = "local w" .. i .. " = v" .. i end
lines[#lines + 1] = "return function() return "
for i = 1, 150 do lines[#lines + 1] = "v" .. i .. " + w" .. i .. " + " end
return table.concat(lines, "\n") .. "1 end end"
