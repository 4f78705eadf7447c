--- One ConversationFlow: its steps, settings and variables compiled, and every reference between
--- steps checked.
local definition = require "tidemill.definition"
local digression = require "tidemill.digression"
local fields = require "tidemill.fields"
local json = require "host.json"
local kinds = require "tidemill.kinds"
local ladder = require "tidemill.ladder"
local origin = require "tidemill.origin"
local phrases = require "tidemill.phrases"
local schema = require "tidemill.schema"
local settings = require "tidemill.settings"

local M = {}

local STEPS_MOST = 2000

local NO_KEY = "what it stores has to be sealed (encrypt_sensitive_data, or encryption in the "
  .. "orchestrator or agent_config.yaml), and there is no key: make one with `openssl rand -base64 "
  .. "32` and set workflow_persistence.general.encryption_key"

local function step_label(flow_id, given, position)
  local id = type(given) == "table" and given.step_id
  return type(id) == "string" and ("flow '%s', step '%s'"):format(flow_id, id)
    or ("flow '%s', step %d"):format(flow_id, position)
end

local function compile_steps(flow, given, context, findings)
  for position, raw in ipairs(given.steps) do
    local source = origin.source(raw, flow.source)
    local report = findings:reporter(source, step_label(flow.flow_id, raw, position))
    local step
    if type(raw) ~= "table" then
      report("must be a ConversationStep { … }", "fields")
    else
      step = definition.compile(raw,
        { agents = context.agents, settings = flow.inherited, source = source,
          ladders = flow.ladders }, report)
    end
    if type(raw) == "table" and type(raw.step_id) == "string" then
      local problem = raw.step_id == "end" and "is reserved: it means that the flow is complete"
        or definition.check_id(raw.step_id)
      if problem then report("step_id " .. problem, "fields") end
      if flow.known[raw.step_id] then report("this step_id is there twice", "fields") end
      flow.known[raw.step_id] = true
    end
    if step and not flow.steps[step.step_id] then
      flow.steps[step.step_id] = step
      flow.step_order[#flow.step_order + 1] = step.step_id
    end
  end
end

local function check_target(flow, target, what, report)
  local other = target:match("^flow:(.*)$")
  if other and not flow.siblings[other] then
    report(("%s: there is no flow '%s'%s"):format(what, other, schema.hint(other, flow.siblings)),
      "targets")
  elseif other and not what:find "^conditional_logic" then
    report(("%s: '%s' is for branches only; a step goes to a flow by conditional_logic, or is a "
      .. "subflow"):format(what, target), "targets")
  elseif other then
    return
  elseif target ~= "end" and not flow.known[target] then
    report(("%s: there is no step '%s'%s"):format(what, target, schema.hint(target, flow.known)),
      "targets")
  end
end

local function check_branch(flow, step, outcome, target, report)
  local what = ("conditional_logic, '%s'"):format(outcome)
  check_target(flow, target, what, report)
  local known = target == "end" or flow.known[target]
  if known and not step.successors[target] then
    report(("%s: '%s' is not among next_steps"):format(what, target), "targets")
  end
end

local function check_rungs(flow, field, rungs, report)
  for _, target in ipairs(ladder.targets(rungs)) do check_target(flow, target, field, report) end
end

local function check_targets(flow, step, report)
  step.successors = {}
  for _, target in ipairs(step.next_steps) do
    check_target(flow, target, "next_steps", report)
    step.successors[target] = target
  end
  step.onward = step.next_steps[1] or "end"
  step.is_end = flow.end_steps[step.step_id] == true
  if #step.next_steps == 0 and not step.is_end then
    report("'next_steps' is missing: name the steps that may follow, or \"end\"", "targets")
  end
  for _, outcome in ipairs(schema.sorted_keys(step.branches or {})) do
    check_branch(flow, step, outcome, step.branches[outcome], report)
  end
  if step.default_branch then
    check_branch(flow, step, "default", step.default_branch, report)
  end
  local shared = flow.ladders
  if step.no_match ~= shared.no_match then
    check_rungs(flow, "on_no_match", step.no_match, report)
  end
  if step.no_input ~= shared.no_input then
    check_rungs(flow, "on_no_input", step.no_input, report)
  end
  if step.flow and not flow.siblings[step.flow] then
    report(("there is no flow '%s'%s"):format(step.flow, schema.hint(step.flow, flow.siblings)),
      "targets")
  end
  if step.on_error then
    check_target(flow, step.on_error, "on_error", report)
    if step.on_error == step.step_id then
      report("on_error: a step cannot be its own way out; use max_retries", "targets")
    end
  end
end

---- branches of a parallel step ----

local WAITING = { user_input = true, approval = true, wait = true }

---Why a step cannot be in a branch; nil when it can.
---@param step any as given, or compiled
---@return string? problem
---@return string? rule
function M.check_in_branch(step)
  if type(step) ~= "table" then return nil end
  local step_type, metadata = step.step_type, step.metadata
  if WAITING[step_type] then
    return ("is a '%s': a branch cannot wait for people or time; let a step before or behind the "
      .. "parallel one do so"):format(step_type), "fields"
  elseif step_type == "parallel" then
    return "is parallel itself: branches in branches are not supported yet", "unsupported"
  elseif type(metadata) == "table" and metadata.conversation_summary then
    return "has metadata.conversation_summary: what is said beside it in other branches would be "
      .. "missing; let a step behind the parallel one sum up", "fields"
  end
end

--- They see the state of the flow that they are in, so they share what it declares. The last step
--- need not say that it is the last.
local function branch_flow(flow, step, name, steps)
  local inner = {}
  for key, value in pairs(flow) do inner[key] = value end
  inner.flow_id = ("%s/%s/%s"):format(flow.flow_id, step.step_id, name)
  inner.source, inner.ladders, inner.interrupts = step.source, {}, {}
  inner.steps, inner.step_order, inner.known, inner.end_steps = {}, {}, {}, {}
  local first, last = steps[1], steps[#steps]
  inner.start_step = type(first) == "table" and first.step_id or ""
  if type(last) == "table" and last.next_steps == nil and type(last.step_id) == "string" then
    inner.end_steps[last.step_id] = true
  end
  return inner
end

local function compile_branch_steps(flow, step, name, steps, context, findings)
  local inner = branch_flow(flow, step, name, steps)
  for _, raw in ipairs(steps) do
    local problem, rule = M.check_in_branch(raw)
    if problem then
      findings:reporter(origin.source(raw, step.source),
        ("flow '%s', step '%s'"):format(inner.flow_id, tostring(raw.step_id)))(problem, rule)
      return nil
    end
  end
  compile_steps(inner, { steps = steps }, context, findings)
  M.check_steps(inner, findings)
  return inner
end

local function compile_branch(flow, step, name, given, context, findings)
  local report = findings:reporter(step.source,
    ("flow '%s', step '%s', branch '%s'"):format(flow.flow_id, step.step_id, name))
  local flow_id = type(given) == "string" and given
    or origin.kind(given) == "ConversationFlow" and given.flow_id
  if flow_id and not flow.siblings[flow_id] then
    report(("there is no flow '%s'%s"):format(flow_id, schema.hint(flow_id, flow.siblings)),
      "targets")
  elseif flow_id then
    return { name = name, flow_id = flow_id }
  elseif not schema.is_list(given) or #given == 0 then
    report("must be a list of steps, or a flow of the system or its flow_id", "fields")
  else
    local inner = compile_branch_steps(flow, step, name, given, context, findings)
    return inner and { name = name, flow = inner }
  end
end

local function compile_branches(flow, step, context, findings)
  step.forks = {}
  for _, name in ipairs(schema.sorted_keys(step.given_branches)) do
    local compiled = compile_branch(flow, step, name, step.given_branches[name], context, findings)
    if compiled then step.forks[#step.forks + 1] = compiled end
  end
  step.given_branches = nil
end

---The flow, and behind it the branches of its parallel steps that are made of steps.
---@param flow tidemill.Flow
---@return tidemill.Flow[]
function M.parts(flow)
  local parts = { flow }
  for _, step_id in ipairs(flow.step_order) do
    for _, fork in ipairs(flow.steps[step_id].forks or {}) do
      parts[#parts + 1] = fork.flow
    end
  end
  return parts
end

---Every reference of a step to another.
---@param flow tidemill.Flow
---@param findings tidemill.Findings
function M.check_steps(flow, findings)
  for _, step_id in ipairs(flow.step_order) do
    local step = flow.steps[step_id]
    check_targets(flow, step,
      findings:reporter(step.source, ("flow '%s', step '%s'"):format(flow.flow_id, step_id)))
  end
end

local TYPE_NAMES = { text = "text", string = "text", number = "number", integer = "integer",
  boolean = "boolean", list = "list", array = "list", object = "object", table = "object" }

local function is_declaration(value)
  if type(value) ~= "table" or type(value.type) ~= "string" then return false end
  for key in pairs(value) do
    if key ~= "type" and key ~= "default" then return false end
  end
  return true
end

local function declare(flow, name, value, report)
  local kind = TYPE_NAMES[value.type]
  if not kind then
    return report(("variables.%s: unknown type '%s'%s"):format(name, value.type,
      schema.hint(value.type, TYPE_NAMES)), "fields")
  end
  flow.types[name] = kind
  local default = value.default
  if default ~= nil and default ~= json.null and not kinds[kind](default) then
    report(("variables.%s: the default is no %s"):format(name, kind), "fields")
  end
  return default
end

local function compile_variables(flow, report)
  local initial = {}
  for key in pairs(flow.variables) do
    if not definition.is_state_name(key) then
      report(("variables: '%s' is no name of letters, digits and _"):format(tostring(key)),
        "fields")
    end
  end
  for _, name in ipairs(schema.sorted_keys(flow.variables)) do
    local value = flow.variables[name]
    if is_declaration(value) then value = declare(flow, name, value, report) end
    initial[name] = value
  end
  local encoded, err = json.encode(initial)
  if not encoded then
    report("variables: " .. err.message:gsub("^value%.?", ""), "fields")
  end
  flow.variables_text = next(initial) ~= nil and encoded or "{}"
end

local function new_flow(given, source, context)
  local own = type(given.settings) == "table" and given.settings or {}
  local inherited = settings.resolve(own, context.orchestrator, context.config)
  return {
    flow_id = given.flow_id, name = given.name, description = given.description,
    pattern = given.pattern or "step_by_step_process", steps = {}, step_order = {},
    start_step = given.start_step, end_steps = {}, settings = own,
    variables = given.variables or {}, types = {}, source = source, known = {},
    siblings = context.flow_ids,
    inherited = inherited, auto_checkpoint = inherited.auto_checkpoint,
    checkpoint_interval_ms = inherited.checkpoint_interval_ms,
    in_memory = not inherited.persist_state, compress = inherited.compress,
    seal = inherited.seal,
  }
end

local function check_ends(flow, given, report)
  check_target(flow, flow.start_step, "start_step", report)
  if flow.start_step == "end" then report("start_step cannot be 'end'", "targets") end
  for _, id in ipairs(given.end_steps or {}) do
    check_target(flow, id, "end_steps", report)
  end
  check_rungs(flow, "on_no_match", flow.ladders.no_match, report)
  check_rungs(flow, "on_no_input", flow.ladders.no_input, report)
  if #given.steps == 0 then report("a flow needs at least one step", "fields") end
  if #given.steps > STEPS_MOST then
    report(("a flow has at most %d steps"):format(STEPS_MOST), "fields")
  end
end

---Compiles a flow; nil when it is unusable. Everything wrong with it is reported.
---@param given any
---@param context { agents: table, orchestrator: table, config: table, source: tidemill.Source }
---@param findings tidemill.Findings
---@return tidemill.Flow?
function M.compile(given, context, findings)
  local source = origin.source(given, context.source)
  local id = type(given) == "table" and given.flow_id
  local report = findings:reporter(source, ("flow '%s'"):format(tostring(id or "?")))
  if type(given) ~= "table" then return report("must be a ConversationFlow { … }", "fields") end
  local problems = origin.problems(given)
  for _, problem in ipairs(problems) do report(problem.text, problem.rule) end
  if #problems > 0 then return nil end
  if not schema.check(fields.flow, given, "flow", report) then return nil end
  local problem = definition.check_id(id)
  if problem then return report("flow_id " .. problem, "fields") end
  if given.settings and not schema.check(fields.settings, given.settings, "settings", report) then
    return nil
  end
  local own = given.settings or {}
  if own.max_rollback_steps and not own.enable_rollback then
    report("settings: 'max_rollback_steps' needs enable_rollback = true", "fields")
  end
  local flow = new_flow(given, source, context)
  if flow.seal and not context.config.can_seal then report(NO_KEY, "fields") end
  for _, step_id in ipairs(given.end_steps or {}) do flow.end_steps[step_id] = true end
  flow.ladders = { no_match = ladder.no_match(given.on_no_match, report),
    no_input = ladder.no_input(given.on_no_input, report) }
  if given.on_no_input and own.interaction_timeout then
    report("'on_no_input' and settings.interaction_timeout mean the same; give one", "fields")
  end
  flow.migrate, flow.compensates = given.migrate, given.compensate_on_failure == true
  flow.phrases = phrases.compile(given.phrases, report)
  flow.interrupts = digression.compile(given.interrupts, flow.siblings, report)
  compile_variables(flow, report)
  compile_steps(flow, given, context, findings)
  for _, step_id in ipairs(flow.step_order) do
    local step = flow.steps[step_id]
    if step.given_branches then compile_branches(flow, step, context, findings) end
  end
  check_ends(flow, given, report)
  M.check_steps(flow, findings)
  return flow
end

return M
