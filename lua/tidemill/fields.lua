--- Every field a script may write, one line each: its type, and whether it works, works with one
--- value only, or is refused as not supported yet. Nothing that is missing here is accepted.
local M = {}

local LATER = { unsupported = true }

local function of(type_name, more)
  local field = more or {}
  field.type = type_name
  return field
end

local function needed(type_name, more)
  local field = of(type_name, more)
  field.required = true
  return field
end

local function set(...)
  local t = {}
  for _, name in ipairs { ... } do t[name] = true end
  return t
end

local function only(value) return { type = "boolean", only = value } end

--- What is decided for all systems at once, by that key of agent_config.yaml.
local function of_host(key, more)
  local field = more or {}
  field.type, field.host = "any", key
  return field
end

local function for_types(type_name, ...) return of(type_name, { kinds = set(...) }) end

M.system = {
  name = of "string", description = of "string", agents = needed "table", flows = of "list",
  orchestrator = of "table", config = of "plain",
}

M.assistant = {
  user_id = needed "string", system_message = of "string",
  provider = of("string", { among = { "offline" } }),
  model = LATER, temperature = LATER, max_tokens = LATER, timeout = LATER, tools = LATER,
  memory = LATER, guard = LATER, context = LATER, shared_memory = LATER,
}

M.flow = {
  flow_id = needed "string", name = of "string", description = of "string",
  pattern = of("string", { among = { "step_by_step_process", "simple_chat",
      "information_gathering", "decision_tree", "approval_workflow",
      "multi_agent_collaboration", "database_interaction" } }),
  steps = needed "list", start_step = needed "string", end_steps = of "names",
  variables = of "table", settings = of "table",
  interrupts = of "list", on_no_match = of "list", on_no_input = of "list",
  phrases = of "table", migrate = of "function", compensate_on_failure = of "boolean",
}

--- One entry of `interrupts`.
M.interrupt = { flow = needed "string", phrases = of "names", condition = of "function" }

--- One rung of a ladder.
M.no_match_rung = { go = needed "string" }
M.no_input_rung = { after = needed "duration", say = of "string", go = of "string",
  close = of("boolean", { among = { true } }) }

M.settings = {
  interaction_timeout = of "duration", max_retries = of("integer", { min = 0, max = 100 }),
  retry_delay = of "duration", persist_state = of "boolean", auto_checkpoint = of "boolean",
  checkpoint_interval = of "duration", lazy_load_agents = of "boolean",
  enable_rollback = of "boolean", max_rollback_steps = of("integer", { min = 1, max = 100 }),
  allow_step_skipping = of "boolean", allow_early_termination = of "boolean",
  resume_on_failure = of "boolean",
  compress_state = of "boolean", encrypt_sensitive_data = of "boolean",
  parallel_validation = of "boolean", cache_agent_responses = only(false),
}

M.step = {
  step_id = needed "string",
  step_type = needed("string", { among = { "agent_response", "user_input", "decision", "action",
    "subflow", "approval", "wait", "parallel" }, later = set "database_query" }),
  agent = { type = "any", kinds = set("agent_response", "decision") },
  prompt = for_types("string", "agent_response", "user_input", "decision", "approval"),
  response = for_types("string", "agent_response"),
  outcome = for_types("any", "agent_response", "decision"),
  input_schema = needed("table", { kinds = set "user_input" }),
  run = needed("function", { kinds = set "action" }),
  condition = for_types("condition", "decision"),
  next_steps = of "names", conditional_logic = of "table", metadata = of "table",
  save_as = of "string", on_error = of "string", timeout = of "duration",
  max_retries = { type = "integer", min = 0, max = 100,
    kinds = set("agent_response", "decision", "action") },
  retry_delay = for_types("duration", "agent_response", "decision", "action"),
  undo = of "function", irreversible = of "boolean",
  checkpoint = for_types("string", "user_input", "approval", "wait"),
  review = for_types("any", "agent_response"), extract = LATER, sensitive = LATER,
  on_no_match = for_types("list", "user_input"), on_no_input = for_types("list", "user_input"),
  role = needed("string", { kinds = set "approval" }),
  default = of("string", { among = { "approved", "rejected" }, kinds = set "approval" }),
  seconds = for_types("moment", "wait"), until_time = for_types("moment", "wait"),
  event = for_types("string", "wait"), tools = LATER, query = LATER, question = LATER,
  flow = needed("string", { kinds = set "subflow" }),
  arguments = for_types("table", "subflow"), result = for_types("result", "subflow"),
  branches = needed("table", { kinds = set "parallel" }), join = for_types("join", "parallel"),
  concurrency = { type = "integer", min = 1, max = 15, kinds = set "parallel" },
  merge = for_types("function", "parallel"),
}

M.metadata = {
  step_category = of "string", required_context = of "names", data_collection = of "names",
  timeout = for_types("duration", "user_input", "agent_response"),
  decision_point = of "boolean", requires_specialist = of "boolean",
  potential_loop_back = of "boolean", allows_multiple_iterations = of "boolean",
  solution_type = of "string", satisfaction_check = for_types("boolean", "user_input"),
  custom = of "plain",
  expected_duration = of "duration", processing_time = of "duration",
  allows_partial_completion = of "boolean",
  conversation_summary = for_types("boolean", "agent_response"),
  satisfaction_survey = for_types("boolean", "user_input"),
}

--- The fields of conditional_logic that are no outcomes.
M.conditional_logic = {
  condition = of "condition", classify = of "boolean", default = of "string",
}

local INPUT_TYPES = { "text", "choice", "number", "integer", "boolean", "date", "email", "phone" }

M.field = {
  type = needed("string", { among = INPUT_TYPES, later = set "structured" }),
  required = of "boolean", placeholder = of "string", validation_hints = of "hints",
  validate = of "function", prompt = of "string", name = needed "string",
  min_length = { type = "integer", min = 0, kinds = set("text", "choice") },
  max_length = { type = "integer", min = 1, kinds = set("text", "choice") },
  pattern = for_types("string", "text", "choice"),
  min = for_types("any", "number", "integer", "date"),
  max = for_types("any", "number", "integer", "date"),
  options = needed("list", { kinds = set "choice" }),
  allow_custom_response = for_types("boolean", "choice"),
}

M.input_schema = {}
for name, field in pairs(M.field) do M.input_schema[name] = field end
M.input_schema.name, M.input_schema.prompt = nil, nil
M.input_schema.type = needed("string", { among = { "text", "choice", "structured", "number",
  "integer", "boolean", "date", "email", "phone" } })
M.input_schema.fields = needed("list", { kinds = set "structured" })

M.option = { label = needed "string", value = of "option" }

--- One rule of an offline `outcome`.
M.outcome = {
  outcome = needed "string", from = of "string", contains = of "any", equals = of "string",
  matches = of "string", longer_than = of("integer", { min = 0 }),
}

--- `review` of a step whose reviewer has no model; else it is an agent.
M.review = { agent = needed "any", outcome = of "any", response = of "string" }

local ENCRYPTION_KEY = of_host("workflow_persistence.general.encryption_key", { secret = true })

M.orchestrator = {
  session_config = of "table", error_config = of "table", performance_config = of "table",
  persistence_config = of "table", memory_manager = LATER, shared_memory = LATER,
  registered_flows = of "table",
  tenant_id = of "string", tenant_isolation = of "boolean", encryption = of "boolean",
  encryption_key = ENCRYPTION_KEY, quota_limits = of "table",
}
M.session_config = {
  default_timeout = of "duration", concurrency = of("string", { among = { "queue", "reject",
    "merge", "interrupt" } }),
  idle_session_timeout = of "duration", session_cleanup_interval = of "duration",
  max_concurrent_sessions = of("integer", { min = 0 }), session_prefix = of "string",
  quota_limits = of "table", tenant_id = of "string",
}
M.quota_limits = {
  max_sessions_per_tenant = of("integer", { min = 0 }),
  max_steps_per_session = of("integer", { min = 0 }),
  rate_limit_per_minute = of("integer", { min = 0 }), max_tokens = LATER, max_cost = LATER,
}
M.error_config = {
  max_retries = of("integer", { min = 0, max = 100 }), retry_delay = of "duration",
  auto_recovery = of "boolean", fallback_responses = of "table",
}
M.fallback_responses = {
  agent_timeout = of "string", agent_error = of "string", network_error = of "string",
}
M.performance_config = {
  step_timeout = of "duration", parallel_execution = of "boolean",
  resource_monitoring = of "boolean", max_workflow_duration = of "duration",
}
M.persistence_config = {
  auto_checkpoint = of "boolean", checkpoint_interval = of "duration", auto_save = of "boolean",
  compression = of "boolean", encryption = of "boolean", tenant_isolation = of "boolean",
  max_checkpoints = of("integer", { min = 0 }),
  backend = of_host "workflow_persistence.backend",
  database_path = of_host "workflow_persistence.sqlite.database_path",
  state_directory = of_host "workflow_persistence.file.storage_directory",
  redis_host = of_host "workflow_persistence.redis.host",
  redis_port = of_host "workflow_persistence.redis.port",
  redis_db = of_host "workflow_persistence.redis.db",
  session_ttl = of_host "workflow_persistence.retention.session_ttl",
  encryption_key = ENCRYPTION_KEY,
}

return M
