--- One settings table with inheritance: step > flow settings > orchestrator > agent_config.yaml.
local fields = require "tidemill.fields"
local schema = require "tidemill.schema"

local M = {}

--- What a flow inherits, in milliseconds where it is a time.
---@class tidemill.Settings
---@field interaction_timeout_ms integer 0: none
---@field max_retries integer
---@field retry_delay_ms integer
---@field step_timeout_ms integer 0: none
---@field auto_checkpoint boolean
---@field checkpoint_interval_ms integer
---@field persist_state boolean
---@field compress boolean
---@field seal boolean if any of those that may ask for it does
---@field parallel boolean branches at once; otherwise in turn
---@field rollback integer how many answered prompts one may go back; 0: not at all
---@field max_duration_ms integer of the conversation from start to end; 0: any
---@field monitors boolean what its steps use is measured
---@field parallel_validation boolean
---@field resume_on_failure boolean
---@field auto_recovery boolean
---@field fallback_responses table<string, string> by the names of tm.FallbackResponses
---@field concurrency string? of messages that come at once; nil: as agent_config.yaml says
---@field checkpoints integer? how many are listed; nil: as agent_config.yaml says

local ROLLBACK_MOST = 100

local function first(...)
  for i = 1, select("#", ...) do
    local value = select(i, ...)
    if value ~= nil then return value end
  end
end

local function any(...)
  for i = 1, select("#", ...) do
    if select(i, ...) then return true end
  end
  return false
end

local SECTIONS = { "session_config", "error_config", "performance_config", "persistence_config" }

local PREFIX_MOST = 64

local function as_table(given) return type(given) == "table" and given or {} end

--- They may stand in both places, in parts too; what is in both has to be the same.
local function check_quotas(own, of_sessions, report)
  local ok = schema.check(fields.quota_limits, own, "orchestrator.quota_limits", report)
  ok = schema.check(fields.quota_limits, of_sessions, "orchestrator.session_config.quota_limits",
    report) and ok
  if not ok then return false end
  for _, name in ipairs(schema.sorted_keys(own)) do
    if of_sessions[name] ~= nil and of_sessions[name] ~= own[name] then
      report(("orchestrator.quota_limits: '%s' is %s, but in session_config.quota_limits it is %s; "
        .. "give it once"):format(name, own[name], of_sessions[name]), "fields")
      ok = false
    end
  end
  return ok
end

local function check_prefix(prefix, report)
  if type(prefix) == "string" and (#prefix > PREFIX_MOST or prefix:find "[\0-\31]"
    or not utf8.len(prefix)) then
    report(("orchestrator.session_config: 'session_prefix' has at most %d bytes of UTF-8 and no "
      .. "control characters"):format(PREFIX_MOST), "fields")
    return false
  end
  return true
end

---Checks an orchestrator table and its sections.
---@param orchestrator table
---@param report fun(text: string, rule: string)
---@return boolean ok
function M.check_orchestrator(orchestrator, report)
  local ok = schema.check(fields.orchestrator, orchestrator, "orchestrator", report)
  for _, name in ipairs(SECTIONS) do
    local section = orchestrator[name]
    if type(section) == "table" then
      ok = schema.check(fields[name], section, "orchestrator." .. name, report) and ok
    end
  end
  local fallback = type(orchestrator.error_config) == "table"
    and orchestrator.error_config.fallback_responses
  if type(fallback) == "table" then
    ok = schema.check(fields.fallback_responses, fallback,
      "orchestrator.error_config.fallback_responses", report) and ok
  end
  local session = as_table(orchestrator.session_config)
  ok = check_prefix(session.session_prefix, report) and ok
  return check_quotas(as_table(orchestrator.quota_limits), as_table(session.quota_limits), report)
    and ok
end

local duration = schema.duration

---What a system says about the sessions of its conversations, for the host; nil: nothing.
---@param orchestrator table checked
---@return { idle_ms: integer?, look_ms: integer?, most: integer?, tenant_most: integer?,
---  steps_most: integer?, rate_most: integer?, prefix: string? }?
function M.sessions(orchestrator)
  local session = orchestrator.session_config or {}
  local own, of_sessions = orchestrator.quota_limits or {}, session.quota_limits or {}
  local function quota(name) return first(own[name], of_sessions[name]) end
  local rules = {
    idle_ms = duration(session.idle_session_timeout),
    look_ms = duration(session.session_cleanup_interval),
    most = session.max_concurrent_sessions,
    tenant_most = quota "max_sessions_per_tenant", steps_most = quota "max_steps_per_session",
    rate_most = quota "rate_limit_per_minute",
    prefix = session.session_prefix,
  }
  return next(rules) and rules or nil
end

local function fallbacks(given, configured)
  local said = {}
  for name in pairs(fields.fallback_responses) do
    said[name] = first((given or {})[name], (configured or {})[name])
  end
  return said
end

---The settings of a flow. All tables have been checked.
---@param own table the flow's `settings`
---@param orchestrator table
---@param config table what host.config gives
---@return tidemill.Settings
function M.resolve(own, orchestrator, config)
  local session = orchestrator.session_config or {}
  local errors = orchestrator.error_config or {}
  local performance = orchestrator.performance_config or {}
  local persistence = orchestrator.persistence_config or {}
  return {
    interaction_timeout_ms = first(duration(own.interaction_timeout),
      duration(session.default_timeout), config.interaction_timeout_ms, 0),
    max_retries = first(own.max_retries, errors.max_retries, config.max_retries, 0),
    retry_delay_ms = first(duration(own.retry_delay), duration(errors.retry_delay),
      config.retry_delay_ms, 1000),
    max_duration_ms = first(duration(performance.max_workflow_duration),
      config.max_workflow_duration_ms, 0),
    parallel_validation = first(own.parallel_validation, true),
    resume_on_failure = own.resume_on_failure or false,
    lazy_agents = own.lazy_load_agents or false,
    auto_recovery = first(errors.auto_recovery, config.auto_recovery, false),
    fallback_responses = fallbacks(errors.fallback_responses, config.fallback_responses),
    step_timeout_ms = first(duration(performance.step_timeout), config.step_timeout_ms, 0),
    parallel = first(performance.parallel_execution, config.parallel_execution, false),
    monitors = first(performance.resource_monitoring, config.resource_monitoring, false),
    auto_checkpoint = first(own.auto_checkpoint, persistence.auto_checkpoint,
      config.auto_checkpoint, true),
    checkpoint_interval_ms = first(duration(own.checkpoint_interval),
      duration(persistence.checkpoint_interval), config.checkpoint_interval_ms, 0),
    persist_state = first(own.persist_state, persistence.auto_save, config.persist_state, true),
    compress = first(own.compress_state, persistence.compression, config.compress, false),
    seal = any(own.encrypt_sensitive_data, orchestrator.encryption, persistence.encryption,
      config.seal),
    checkpoints = persistence.max_checkpoints, concurrency = session.concurrency,
    rollback = own.enable_rollback and (own.max_rollback_steps or ROLLBACK_MOST) or 0,
  }
end

--- The steps that do something themselves; the others wait for somebody.
local RUNS = { agent_response = true, decision = true, action = true }

---What a step's own fields change. `step` has been checked.
---@param step table as given
---@param inherited tidemill.Settings
---@return { max_retries: integer, retry_delay_ms: integer, timeout_ms: integer,
---  own_timeout: boolean }
function M.of_step(step, inherited)
  local metadata = step.metadata or {}
  local own_timeout = first(duration(step.timeout), duration(metadata.timeout))
  local kind = step.step_type
  local inherits = kind == "user_input" and inherited.interaction_timeout_ms
    or RUNS[kind] and inherited.step_timeout_ms or 0
  return {
    max_retries = RUNS[kind] and first(step.max_retries, inherited.max_retries) or 0,
    retry_delay_ms = first(duration(step.retry_delay), inherited.retry_delay_ms),
    timeout_ms = first(own_timeout, inherits), own_timeout = own_timeout ~= nil,
  }
end

return M
