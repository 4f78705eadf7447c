---@meta host.timer
-- luacheck: no unused args
local timer = {}

---Completes after `ms` milliseconds with no values.
---@param ms integer 0 to 86400000; what takes longer is a deadline of the conversation
---@return integer? op
---@return host.Error? err
function timer.start(ms) end

return timer
