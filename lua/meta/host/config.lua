---@meta host.config
-- luacheck: no unused args
--- The defaults that the host was configured with.
local config = {}

---@class host.Config
---@field interaction_timeout_ms integer?
---@field max_retries integer?
---@field retry_delay_ms integer?
---@field step_timeout_ms integer?
---@field max_workflow_duration_ms integer?
---@field resource_monitoring boolean?
---@field auto_recovery boolean?
---@field fallback_responses table<string, string>?
---@field auto_checkpoint boolean?
---@field checkpoint_interval_ms integer?
---@field compress boolean?
---@field seal boolean?
---@field can_seal boolean? there is a key
---@field isolates boolean? each tenant has a store and Lua states of its own
---@field output_limit integer?
---@field http_response_limit integer? bytes
---@field webhooks boolean? events have somebody to be told
---@field llm table?

---A fresh table each time.
---@return host.Config
function config.get() end

return config
