---@meta host.uuid
-- luacheck: no unused args
local uuid = {}

---A fresh UUIDv7, lower-case.
---@return string id
function uuid.new() end

return uuid
