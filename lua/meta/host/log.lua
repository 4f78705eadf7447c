---@meta host.log
-- luacheck: no unused args
local log = {}

---One line in the host's log, cut at 1 KiB; values at 255 bytes.
---@param level "debug"|"info"|"warning"|"error"
---@param message string
---@param fields table<string, string|number|boolean>? at most 8
function log.write(level, message, fields) end

return log
