--- A loaded system: what `tm.system{…}` of a script becomes once it is checked and compiled.
---
--- `load` collects as many findings as it can instead of stopping at the first. Its rules are
--- `script` (syntax and run-time errors of the files), `fields` (unknown names, wrong types,
--- missing ones), `unsupported`, `agents` (an agent exists), `targets` (start_step, end_steps,
--- next_steps, branches, on_error exist; branches stay within next_steps) and `templates` (syntax
--- only). `tidemill.check` adds what needs the whole picture: unknown names, unreachable steps,
--- labels that assert something.
local agents = require "tidemill.agent"
local definition = require "tidemill.definition"
local fault = require "tidemill.fault"
local fields = require "tidemill.fields"
local flows = require "tidemill.flow"
local host_config = require "host.config"
local json = require "host.json"
local orchestrators = require "tidemill.orchestrator"
local origin = require "tidemill.origin"
local sandbox = require "tidemill.sandbox"
local schema = require "tidemill.schema"
local settings = require "tidemill.settings"
local tenancy = require "tidemill.tenancy"
local view = require "tidemill.view"

local M = {}

local systems = {} ---@type table<string, tidemill.System>

local MAIN = "init"
local ANSWER_BYTES = 1 << 20 -- where no configuration says it

---@class tidemill.Source where a constructor was called; line 0 when it is not known
---@field file string
---@field line integer

---@class tidemill.Finding
---@field file string
---@field line integer
---@field level "error"|"warning"
---@field text string says what is wrong, in which flow and step, and what to do
---@field rule string

---@class tidemill.System
---@field name string
---@field description string?
---@field agents table<string, tidemill.Agent>
---@field agent_order string[] sorted by name
---@field flows table<string, tidemill.Flow>
---@field flow_order string[] as given
---@field orchestrator table as given, or {}
---@field config table a copy of the given one, or {}
---@field config_view table as scripts see it
---@field output_limit integer? bytes of one output
---@field http_response_limit integer bytes of one answer from the outside
---@field webhooks boolean? somebody is told of events
---@field files string[] the files that were read, in order
---@field source tidemill.Source

---@class tidemill.Agent
---@field name string its key in `agents`
---@field user_id string
---@field type "assistant"|"custom"
---@field provider string "offline" or "custom"
---@field system_message string?
---@field respond (fun(ctx: tm.Context, request: tm.Request): any, any)? custom agents
---@field maker (fun(): any, any)? that it was given as
---@field made table? what that has made
---@field source tidemill.Source

---@class tidemill.Flow
---@field flow_id string
---@field name string?
---@field description string?
---@field pattern string
---@field steps table<string, tidemill.Step>
---@field step_order string[] as given
---@field start_step string
---@field end_steps table<string, true>
---@field settings table as given, or {}
---@field variables table as given, or {}; a value or { type, default }
---@field variables_text string JSON of the initial state
---@field types table<string, string> variables with a declared type
---@field auto_checkpoint boolean
---@field checkpoint_interval_ms integer
---@field in_memory boolean
---@field compress boolean
---@field seal boolean
---@field compensates boolean
---@field migrate (fun(state: table, from_version: string): table)?
---@field source tidemill.Source

---@class tidemill.Step
---@field step_id string
---@field step_type string
---@field agent string? name of an agent of the system
---@field prompt tidemill.Template? compiled
---@field response tidemill.Template? likewise; offline
---@field input tidemill.Input? the compiled input_schema
---@field next_steps string[] {} when none was given; may hold "end"
---@field conditional_logic table? as given
---@field condition (string|function)? of conditional_logic or of a decision
---@field condition_path (string|integer)[]? of a name
---@field branches table<string, string>? outcome → step id or "end"; without default
---@field default_branch string?
---@field successors table<string, string> next_steps as a set
---@field is_end boolean the flow is complete after it
---@field classify boolean
---@field outcome any as given (offline)
---@field outcome_plan any compiled
---@field review tidemill.Review? of an agent_response
---@field run (fun(ctx: tm.Context): any, any)? of an action
---@field save_as string?
---@field collects string? the first name of data_collection
---@field writes string[] names that the step is known to bring into state
---@field required_context string[]
---@field required_paths (string|integer)[][]
---@field checkpoint string? the name of one, made where it waits
---@field on_error string? step id
---@field max_retries integer
---@field retry_delay_ms integer
---@field timeout_ms integer 0: none; of a user_input: how long it waits
---@field metadata table as given, or {}
---@field forks { name: string, flow: tidemill.Flow?, flow_id: string? }[]? by name (parallel)
---@field join integer? how many of them must be completed
---@field concurrency integer? how many run at once
---@field merge (fun(ctx: tm.Context, results: table<string, tm.BranchResult>): any, any)?
---@field source tidemill.Source

--- "scripts/NAME/init.lua:12: text" in its parts.
local function split_position(message, main)
  local file, line, rest = message:match("^(.-):(%d+): (.*)$")
  if not file then return main, message end
  return { file = origin.full_name(file), line = math.tointeger(tonumber(line)) }, rest
end

local function run_script(box, findings)
  local ok, made = xpcall(box.require, fault.caught, MAIN)
  if ok then return made end
  if type(made) == "string" then error(made, 0) end -- no memory for a handler: the host says whose
  local source, message = split_position(made.message, box.main)
  findings:add(source, message, "script")
end

local function compile_agents(system, given, config, findings)
  local by_name, by_value = {}, {}
  for key in pairs(given) do
    if definition.check_id(key) then
      findings:add(system.source, ("agents: the key '%s' %s"):format(tostring(key),
        definition.check_id(key)), "fields")
    end
  end
  for _, name in ipairs(schema.sorted_keys(given)) do
    local agent = agents.compile(name, given[name], config, system.source, findings)
    by_name[name] = agent or false
    local kind = type(given[name])
    if kind == "table" or kind == "function" then by_value[given[name]] = name end
    if agent then
      system.agents[name] = agent
      system.agent_order[#system.agent_order + 1] = name
    end
  end
  return { by_name = by_name, by_value = by_value }
end

local function compile_flows(system, given, context, findings)
  local seen = {}
  for _, raw in ipairs(given) do
    local flow = flows.compile(raw, context, findings)
    local id = type(raw) == "table" and raw.flow_id
    if type(id) == "string" and seen[id] then
      findings:add(origin.source(raw, system.source),
        ("flow '%s': this flow_id is there twice"):format(id), "fields")
    elseif flow then
      system.flows[id] = flow
      system.flow_order[#system.flow_order + 1] = id
    end
    seen[id or 0] = type(id) == "string"
  end
  if #given == 0 then findings:add(system.source, "a system needs at least one flow", "fields") end
end

--- The flows that a step can go to, whether they could be compiled or not.
local function flow_ids(given)
  local ids = {}
  for _, raw in ipairs(given) do
    if type(raw) == "table" and type(raw.flow_id) == "string" then ids[raw.flow_id] = true end
  end
  return ids
end

--- What a step gives another flow and takes from it has to be declared there.
local function check_subflow(step, flow, report)
  for _, name in ipairs(schema.sorted_keys(step.arguments)) do
    if flow.variables[name] == nil then
      report(("arguments: '%s' is no variable of the flow '%s'%s"):format(name, flow.flow_id,
        schema.hint(name, flow.variables)), "targets")
    end
  end
end

--- Adds the flows that the steps of a flow can go to.
local function add_reached(system, flow, list, seen)
  local function add(flow_id)
    local other = flow_id and system.flows[flow_id]
    if not other or seen[flow_id] then return end
    seen[flow_id], list[#list + 1] = true, other
  end
  for _, step_id in ipairs(flow.step_order) do
    local step, branches = flow.steps[step_id], flow.steps[step_id].branches or {}
    add(step.flow)
    add(step.default_branch and step.default_branch:match "^flow:(.*)$")
    for _, outcome in ipairs(schema.sorted_keys(branches)) do
      add(branches[outcome]:match "^flow:(.*)$")
    end
  end
end

local function check_reached(flow, caller, report)
  for _, step_id in ipairs(flow.step_order) do
    local problem, rule = flows.check_in_branch(flow.steps[step_id])
    if problem then
      return report(("leads to the step '%s' of the flow '%s', which %s"):format(step_id,
        flow.flow_id, problem), rule)
    end
  end
  if flow.seal and not caller.seal then
    report(("leads to the flow '%s', which seals what it stores; let the flow '%s' seal it too "
      .. "(encrypt_sensitive_data)"):format(flow.flow_id, caller.flow_id), "fields")
  end
end

--- Whatever flows a branch leads to: none of them may have a step that no branch can have.
local function check_fork(system, flow, fork, report)
  local list, seen = {}, {}
  if fork.flow then add_reached(system, fork.flow, list, seen) end
  local named = fork.flow_id and system.flows[fork.flow_id]
  if named then seen[fork.flow_id], list[1] = true, named end
  local at = 1
  while list[at] do
    check_reached(list[at], flow, report)
    add_reached(system, list[at], list, seen)
    at = at + 1
  end
end

local function check_other_flows(system, flow, step, findings)
  local label = ("flow '%s', step '%s'"):format(flow.flow_id, step.step_id)
  local other = step.flow and system.flows[step.flow]
  if other then check_subflow(step, other, findings:reporter(step.source, label)) end
  for _, fork in ipairs(step.forks or {}) do
    check_fork(system, flow, fork,
      findings:reporter(step.source, ("%s, branch '%s'"):format(label, fork.name)))
  end
end

local function check_subflows(system, findings)
  for _, flow_id in ipairs(system.flow_order) do
    for _, flow in ipairs(flows.parts(system.flows[flow_id])) do
      for _, step_id in ipairs(flow.step_order) do
        check_other_flows(system, flow, flow.steps[step_id], findings)
      end
    end
  end
end

local function check_name(name, given, report)
  if given.name and given.name ~= name then
    report(("its name is '%s' but its folder is '%s'; a system is named by its folder")
      :format(given.name, name), "fields")
  end
end

--- The agents that nobody uses, or a flow that does not wait for their first use.
local function needed_at_start(system)
  local used, needed = {}, {}
  for _, flow_id in ipairs(system.flow_order) do
    for _, flow in ipairs(flows.parts(system.flows[flow_id])) do
      for _, step in pairs(flow.steps) do
        for _, name in ipairs { step.agent or false, step.review and step.review.agent } do
          if name then used[name] = true end
          if name and not flow.inherited.lazy_agents then needed[name] = true end
        end
      end
    end
  end
  for _, name in ipairs(system.agent_order) do needed[name] = needed[name] or not used[name] end
  return needed
end

local function make_agents(system, findings)
  local needed = needed_at_start(system)
  for _, name in ipairs(system.agent_order) do
    local agent = system.agents[name]
    local ok, failure = true, nil
    if agent.maker and needed[name] then ok, failure = xpcall(agents.make, fault.caught, agent) end
    if not ok then
      findings:add(agent.source, ("agent '%s': %s"):format(name, fault.of(failure).message),
        "agents")
    end
  end
end

local function compile(name, given, box, findings)
  local source = origin.source(given, box.main)
  local report = findings:reporter(source, ("system '%s'"):format(name))
  if not schema.check(fields.system, given, "system", report) then return nil end
  check_name(name, given, report)
  local orchestrator = orchestrators.plain(given.orchestrator)
  local config = host_config.get()
  local report_orchestrator = findings:reporter(origin.source(given.orchestrator, source),
    ("system '%s'"):format(name))
  settings.check_orchestrator(orchestrator, report_orchestrator)
  tenancy.check(orchestrator, config, report_orchestrator)
  local own_config = view.copy(given.config or {}) -- no script holds it
  local system = {
    name = name, description = given.description, agents = {}, agent_order = {}, flows = {},
    flow_order = {}, orchestrator = orchestrator, config = own_config, files = box.files,
    source = source, output_limit = config.output_limit, webhooks = config.webhooks,
    http_response_limit = config.http_response_limit or ANSWER_BYTES,
    config_view = view.readonly(own_config,
      "ctx.config.%s cannot be written: the config belongs to all conversations"),
  }
  local known = compile_agents(system, given.agents, config, findings)
  local all = orchestrators.flows(given.flows, orchestrator, report)
  compile_flows(system, all, { agents = known, orchestrator = orchestrator, config = config,
    source = source, flow_ids = flow_ids(all) }, findings)
  check_subflows(system, findings)
  make_agents(system, findings)
  return system
end

---Loads a system from the files that the host gives. The system may be incomplete, or nil, when
---there are findings of level "error".
---@param name string
---@return tidemill.System? system
---@return tidemill.Findings findings
function M.load(name)
  local findings = origin.findings()
  local box = sandbox.new(require "tidemill")
  local given = run_script(box, findings)
  box.freeze()
  if findings.errors > 0 then return nil, findings end
  if origin.kind(given) ~= "system" then
    findings:add(box.main, "init.lua must return tm.system { … }", "script")
    return nil, findings
  end
  return compile(name, given, box, findings), findings
end

local function describe_step(step)
  return { step_id = step.step_id, step_type = step.step_type, agent = step.agent,
    next_steps = json.array(step.next_steps), step_category = step.metadata.step_category,
    solution_type = step.metadata.solution_type, expected_ms = step.expected_ms,
    custom = step.metadata.custom, review = step.review and step.review.agent }
end

local function describe_flow(flow)
  local steps, ends = json.array {}, json.array(schema.sorted_keys(flow.end_steps))
  for i, id in ipairs(flow.step_order) do steps[i] = describe_step(flow.steps[id]) end
  return { flow_id = flow.flow_id, name = flow.name, description = flow.description,
    pattern = flow.pattern, start_step = flow.start_step, end_steps = ends,
    settings = flow.settings, steps = steps }
end

---What /v1/systems answers about a system.
---@param system tidemill.System
---@return string json
function M.describe(system)
  local described = { name = system.name, description = system.description,
    agents = json.array {}, flows = json.array {},
    session_config = settings.sessions(system.orchestrator),
    tenant_id = tenancy.owner(system.orchestrator) }
  for i, name in ipairs(system.agent_order) do
    local agent = system.agents[name]
    described.agents[i] = { name = name, user_id = agent.user_id, type = agent.type,
      provider = agent.provider }
  end
  for i, id in ipairs(system.flow_order) do described.flows[i] = describe_flow(system.flows[id]) end
  return assert(json.encode(described))
end

local function refusal(findings)
  local items, first = findings.items, nil
  for _, item in ipairs(items) do
    if item.level == "error" then first = first or item end
  end
  local more = findings.errors - 1
  local rest = more > 0 and (" (and %d more; `tidemill check` lists them all)"):format(more) or ""
  return fault.new("script.invalid",
    ("%s:%d: %s%s"):format(first.file, first.line, first.text, rest), { status = "script" })
end

---From here on it stays, with all that its scripts keep: the host measures that behind a load and a
---check.
---@param name string
---@param system tidemill.System
function M.hold(name, system)
  systems[name] = system
end

---Loads a system for turns; raises when it has errors.
---@param name string
---@return string json its description
function M.open(name)
  local system, findings = M.load(name)
  if findings.errors > 0 then error(refusal(findings), 0) end
  M.hold(name, system --[[@as tidemill.System]])
  return M.describe(system --[[@as tidemill.System]])
end

---@param name string
---@return tidemill.System?
function M.loaded(name)
  return systems[name]
end

return M
