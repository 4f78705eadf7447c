-- A million constants in one table.
-- as: source
-- expect: refused script.invalid
local lines = { "return {" }
for i = 1, 100000 do lines[#lines + 1] = i .. "." .. i % 7 .. "," end
return table.concat(lines) .. "}"
