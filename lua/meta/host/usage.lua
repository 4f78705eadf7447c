---@meta host.usage
-- luacheck: no unused args
--- What the turn that runs takes of the machine, measured from the first question on.
local usage = {}

---Zeros outside of turns.
---@return integer cpu_us CPU time so far
---@return integer bytes that it holds now
---@return integer peak_bytes the most that it has held since the last question
function usage.read() end

return usage
