---@meta host.closure
-- luacheck: no unused args
local closure = {}

---Where a function stands in its source; nil when it is none of Lua's.
---@param fn function
---@return string? chunk "@scripts/NAME/init.lua"
---@return integer first line
---@return integer last line
function closure.place(fn) end

---The `i`-th upvalue of a function; nil when it has no more.
---@param fn function
---@param i integer from 1 to 255
---@return string? name
---@return any value
function closure.upvalue(fn, i) end

return closure
