---@meta host.crypto
-- luacheck: no unused args
local crypto = {}

---The first `n` hex digits of the BLAKE2b-256 digest of a text.
---@param text string
---@param n integer 1 to 64
---@return string hex
function crypto.digest(text, n) end

return crypto
