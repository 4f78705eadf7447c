---@meta host.op
-- luacheck: no unused args
local op = {}

---@class host.Error what every primitive returns behind nil; tostring gives the message
---@field code string stable, for programs
---@field message string what happened, where, what to do
---@field status string a name of tm_status: "invalid", "not_found", "unavailable", …
---@field retryable boolean may the same work later?

---Nothing more comes for the operation: neither `data` nor `done` nor `failed`.
---@param id integer
---@return boolean cancelled false when it was over already
function op.cancel(id) end

return op
