---@meta host.http
-- luacheck: no unused args
local http = {}

---@class host.HttpRequest
---@field method string
---@field url string
---@field headers table<string, string>? at most 64
---@field body string?
---@field timeout_ms integer of the whole request
---@field max_bytes integer of the answer's body; more is the error `http.too_large`

---@class host.HttpAnswer
---@field status integer
---@field headers table<string, string> by lower-case name; repeated ones are joined by ", "
---@field body string

---One request to the outside, without retries. Completes with a `host.HttpAnswer`; any status is an
---answer. Failures: `http.timeout`, `http.connect`, `http.resolve`, `http.tls`, `http.redirect`,
---`http.busy`, `http.too_large`, `http.invalid`, `http.failed`.
---@param request host.HttpRequest
---@return integer? op
---@return host.Error? err
function http.request(request) end

return http
