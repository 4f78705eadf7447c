-- More locals than a function has registers.
-- as: source
-- expect: refused script.invalid too many local variables
local lines = {}
for i = 1, 1000 do lines[i] = "local v" .. i .. " = 1" end
return table.concat(lines, "\n")
