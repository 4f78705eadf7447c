---@meta host.clock
-- luacheck: no unused args
--- What time it is, by the host's clock.
local clock = {}

---Milliseconds since 1970, UTC.
---@return integer ms
function clock.now() end

---Milliseconds since some moment: for measuring spans, never for deadlines.
---@return integer ms
function clock.monotonic() end

return clock
