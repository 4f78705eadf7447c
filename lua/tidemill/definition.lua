--- One ConversationStep: checked field by field and compiled. References to other steps are the
--- flow's business.
local template = require "tidemill.template"
local fields = require "tidemill.fields"
local input_schema = require "tidemill.input_schema"
local ladder = require "tidemill.ladder"
local offline = require "tidemill.provider.offline"
local json = require "host.json"
local review = require "tidemill.review"
local schema = require "tidemill.schema"
local settings = require "tidemill.settings"
local view = require "tidemill.view"

local M = {}

local ID_LONGEST = 64

--- What a step can be now; what else is written beside a kind that is not here is not looked at.
local STEP_TYPES = {}
for _, kind in ipairs(fields.step.step_type.among) do STEP_TYPES[kind] = true end

---@param id any
---@return string? problem
function M.check_id(id)
  if type(id) ~= "string" then return "must be a text" end
  if #id > ID_LONGEST then return ("is longer than %d bytes"):format(ID_LONGEST) end
  if not id:find("^[%a_][%w_%-]*$") then
    return "must be made of letters, digits, '_' and '-', and begin with a letter"
  end
end

---@param name any
---@return boolean
local function is_state_name(name)
  return type(name) == "string" and #name <= ID_LONGEST and name:find("^[%a_][%w_]*$") ~= nil
end
M.is_state_name = is_state_name

local function compile_template(source, field, report)
  if type(source) ~= "string" then return nil end
  local compiled, problem = template.compile(source)
  if not compiled then report(("'%s': %s"):format(field, problem), "templates") end
  return compiled
end

local function agent_name(given, field, agents, report)
  if given == nil then return nil end
  if type(given) == "string" then
    if agents.by_name[given] ~= nil then return given end
    report(("'%s': there is no agent '%s'%s"):format(field, given,
      schema.hint(given, agents.by_name)), "agents")
  elseif agents.by_value[given] then
    return agents.by_value[given]
  else
    report(("'%s' is not one of the system's agents; add it to `agents`"):format(field), "agents")
  end
end

local function compile_review(step, given, agents, report)
  local function find(agent, field) return agent_name(agent, field, agents, report) end
  step.review = review.compile(step, given, agents, find, report)
end

--- The branches of conditional_logic, its keys as texts: { [true] = … } is the outcome "true".
local function compile_branches(logic, report)
  local branches, reserved = {}, {}
  for key, target in pairs(logic) do
    local name = tostring(key)
    if type(key) == "string" and fields.conditional_logic[key] then
      reserved[key] = target
    elseif type(target) ~= "string" then
      report(("conditional_logic: outcome '%s' must name a step"):format(name), "fields")
    elseif branches[name] then
      report(("conditional_logic: outcome '%s' is there twice: as a text, and as a number or "
        .. "true/false"):format(name), "fields")
    else
      branches[name] = target
    end
  end
  schema.check(fields.conditional_logic, reserved, "conditional_logic", report)
  return branches
end

--- "name" or "a.b" as a path; functions stay as they are.
local function compile_condition(step, condition, report)
  step.condition = condition
  if type(condition) ~= "string" then return end
  step.condition_path = template.path(condition)
  if not step.condition_path then
    report(("condition '%s' is no name"):format(condition), "fields")
  end
end

--- The outcomes that a step has by its type, so that conditional_logic needs no condition.
local OUTCOMES = {
  approval = { approved = true, rejected = true }, wait = { event = true, timeout = true },
}

local function check_outcomes(step, condition, report)
  local known = OUTCOMES[step.step_type]
  if condition ~= nil or step.classify then
    report(("conditional_logic of '%s' has no condition: its outcomes are %s")
      :format(step.step_type, table.concat(schema.sorted_keys(known), " and ")), "fields")
  end
  for _, outcome in ipairs(schema.sorted_keys(step.branches or {})) do
    if not known[outcome] then
      report(("conditional_logic: '%s' has no outcome '%s'%s"):format(step.step_type, outcome,
        schema.hint(outcome, known)), "fields")
    end
  end
  step.has_outcome = step.branches ~= nil
end

local function compile_logic(step, given, report)
  local logic = given.conditional_logic
  if given.condition ~= nil and logic and logic.condition ~= nil then
    report("'condition' is given twice: at the step and in conditional_logic", "fields")
  end
  if logic then
    step.conditional_logic = logic
    step.branches = compile_branches(logic, report)
    step.default_branch, step.classify = logic.default, logic.classify == true
    if next(step.branches) == nil and logic.default == nil then
      report("conditional_logic has no outcomes", "fields")
    end
  end
  local condition = given.condition
  if condition == nil and logic then condition = logic.condition end
  compile_condition(step, condition, report)
  if OUTCOMES[step.step_type] then
    check_outcomes(step, condition, report)
  elseif logic and condition == nil and not step.classify then
    report("conditional_logic needs a 'condition' (a name or a function), or classify = true",
      "fields")
  end
  if step.classify and type(condition) == "function" then
    report("conditional_logic: classify = true and a condition function exclude each other",
      "fields")
  end
end

local function check_decision(step, report)
  if step.condition == nil and not step.classify then
    report("a decision needs a 'condition'", "fields")
  end
  if step.classify and not step.agent then
    report("classify = true needs an 'agent' that chooses", "fields")
  end
end

local function check_classify(step, report)
  if step.classify and step.step_type ~= "agent_response" and step.step_type ~= "decision" then
    report(("classify = true needs an agent: it does not belong to '%s'"):format(step.step_type),
      "fields")
  end
  if step.outcome ~= nil and not step.classify then
    report("'outcome' is used by conditional_logic with classify = true only", "fields")
  end
  if step.outcome ~= nil and step.classify then
    step.outcome_plan = offline.compile_outcome(step.outcome, step.branches,
      step.default_branch ~= nil, report)
  end
end

--- Names of data_collection beyond the first are filled by `extract`, unless they are fields.
local function check_collection(step, names, report)
  local by_name = step.input and step.input.by_name or {}
  for i, name in ipairs(names) do
    if not is_state_name(name) then
      report(("metadata.data_collection: '%s' is no name"):format(name), "fields")
    elseif i > 1 and not by_name[name] then
      report(("metadata.data_collection: '%s' would have to be filled by 'extract', which is not "
        .. "supported yet; only the first name, and fields of a structured input, are")
        :format(name), "unsupported")
    end
  end
end

local function add_writes(step, names)
  local writes, seen = {}, {}
  local function add(name)
    if name and not seen[name] then
      seen[name] = true
      writes[#writes + 1] = name
    end
  end
  add(step.save_as)
  if names[1] then
    add(names[1])
    for _, field in ipairs(step.input and step.input.fields or {}) do add(field.name) end
  end
  step.writes, step.collects = writes, names[1]
end

--- A list of names that no script holds.
local function copied(names)
  return table.move(names or {}, 1, #(names or {}), 1, {})
end

--- A text is a template; of anything else a copy is kept.
local function compile_argument(name, value, report)
  if type(value) == "string" then return compile_template(value, "arguments." .. name, report) end
  local fine, err = json.check(value)
  if not fine then
    report(("arguments.%s cannot be kept: %s"):format(name, err.message), "fields")
  end
  return fine and type(value) == "table" and view.copy(value) or value
end

--- `result` as paths into the state that the other flow ends with.
local function compile_result(given, report)
  local names = type(given) == "string" and { given } or copied(given)
  local result = { single = type(given) == "string", names = names, paths = {} }
  for i, name in ipairs(names) do
    result.paths[i] = template.path(name)
    if not result.paths[i] then report(("result: '%s' is no name"):format(name), "fields") end
  end
  return result
end

local function compile_approval(step, given, report)
  step.role, step.default = given.role, given.default or "rejected"
  if not given.prompt then
    report("an approval needs a 'prompt': what is to be approved", "fields")
  end
  if given.default and step.timeout_ms == 0 then
    report("'default' needs a 'timeout': after which time it is taken", "fields")
  end
end

local function compile_wait(step, given, report)
  local ways = 0
  for _, name in ipairs { "seconds", "until_time", "event" } do
    ways = ways + (given[name] ~= nil and 1 or 0)
  end
  if ways ~= 1 then
    report("a wait needs one of 'seconds', 'until_time' and 'event'", "fields")
  end
  if given.timeout ~= nil and given.event == nil then
    report("the 'timeout' of a wait belongs to 'event'", "fields")
  end
  if given.checkpoint ~= nil and given.event == nil then
    report("the 'checkpoint' of a wait belongs to 'event': one cannot go back to where nobody is "
      .. "waited for", "fields")
  end
  if given.until_time ~= nil and type(given.until_time) ~= "function"
    and math.type(given.until_time) ~= "integer" then
    report("'until_time' must be milliseconds since 1970, UTC, or a function", "fields")
  end
  if given.seconds ~= nil and type(given.seconds) ~= "function"
    and not schema.duration(given.seconds) then
    report("'seconds' must be a duration or a function", "fields")
  end
  step.seconds, step.until_time = given.seconds, given.until_time
  step.event = compile_template(given.event, "event", report)
end

--- A step's own ladder or timeout comes before those of its flow.
local function compile_ladders(step, given, own, flow, report)
  if given.on_no_input ~= nil and own.own_timeout then
    report("'on_no_input' and 'timeout' mean the same; give one", "fields")
  end
  step.no_match = ladder.no_match(given.on_no_match, report) or flow.no_match
  step.no_input = ladder.no_input(given.on_no_input, report)
    or not own.own_timeout and flow.no_input or ladder.of_timeout(step.timeout_ms)
end

local function compile_subflow(step, given, report)
  step.flow, step.arguments = given.flow, {}
  for name, value in pairs(given.arguments or {}) do
    if is_state_name(name) then
      step.arguments[name] = compile_argument(name, value, report)
    else
      report(("arguments: '%s' is no name of letters, digits and _"):format(tostring(name)),
        "fields")
    end
  end
  if given.result then step.result = compile_result(given.result, report) end
  if given.save_as and not given.result then
    report("'save_as' needs 'result': which name of the other flow's state is kept", "fields")
  end
end

local BRANCHES_MOST, AT_ONCE = 64, 8

--- How many branches have to be completed, and how many run at once; the branches themselves are
--- the flow's business.
local function compile_parallel(step, given, report, inherited)
  local names = schema.sorted_keys(given.branches)
  for name in pairs(given.branches) do
    local problem = M.check_id(name)
    if problem then report(("branches: the name '%s' %s"):format(tostring(name), problem),
      "fields") end
  end
  if #names == 0 or #names > BRANCHES_MOST then
    report(("'branches' must be 1 to %d branches by name"):format(BRANCHES_MOST), "fields")
  end
  local join = given.join or "all"
  step.join = join == "all" and #names or join == "any" and 1 or join
  if step.join > #names then
    report(("'join' = %d is more than there are branches"):format(step.join), "fields")
  end
  step.concurrency = given.concurrency or inherited.parallel and AT_ONCE or 1
  step.merge, step.given_branches = given.merge, given.branches
end

local function check_names(step, given, report)
  if given.save_as ~= nil and not is_state_name(given.save_as) then
    report(("'save_as': '%s' is no name of letters, digits and _"):format(given.save_as), "fields")
  end
  if given.checkpoint ~= nil and not is_state_name(given.checkpoint) then
    report(("'checkpoint': '%s' is no name of letters, digits and _"):format(given.checkpoint),
      "fields")
  end
  local metadata = step.metadata
  check_collection(step, metadata.data_collection or {}, report)
  add_writes(step, metadata.data_collection or {})
  step.required_context, step.required_paths = copied(metadata.required_context), {}
  for i, name in ipairs(step.required_context) do
    step.required_paths[i] = template.path(name)
    if not step.required_paths[i] then
      report(("metadata.required_context: '%s' is no name"):format(name), "fields")
    end
  end
end

local function check_timeout(given, metadata, report)
  if given.timeout ~= nil and metadata.timeout ~= nil then
    report("'timeout' and 'metadata.timeout' mean the same; give one", "fields")
  end
end

local function check_agent(step, given, agents, report)
  if step.step_type == "agent_response" and given.agent == nil then
    report("an agent_response needs an 'agent'", "agents")
  end
  local agent = step.agent and agents.by_name[step.agent]
  if agent and agent.respond then
    for _, field in ipairs { "response", "outcome" } do
      if given[field] ~= nil then
        report(("'%s' is what an offline agent answers; '%s' answers itself, by its respond")
          :format(field, step.agent), "fields")
      end
    end
  end
  if step.step_type == "decision" and step.agent and not step.classify then
    report("the 'agent' of a decision is used with classify = true only", "fields")
  end
end

--- nil when the table is too wrong to be compiled.
local function checked_metadata(given, report)
  local metadata = given.metadata or {}
  if not schema.check(fields.metadata, metadata, "metadata", report, given.step_type) then
    return nil
  end
  check_timeout(given, metadata, report)
  return metadata
end

local function compile_input(step, given, inherited, report)
  step.input = input_schema.compile(given.input_schema, report)
  if not step.input then return end
  local metadata, structured = step.metadata, step.input.fields ~= nil
  step.input.first_only = not inherited.parallel_validation
  step.input.by_and_by = metadata.allows_partial_completion
  if metadata.allows_partial_completion and not structured then
    report("metadata.allows_partial_completion belongs to an input_schema of the type "
      .. "'structured'", "fields")
  end
end

--- How long it should take; longer is told to the operators.
local function compile_duration(step, metadata, report)
  if metadata.expected_duration ~= nil and metadata.processing_time ~= nil then
    report("'metadata.expected_duration' and 'metadata.processing_time' mean the same; give one",
      "fields")
  end
  step.expected_ms = schema.duration(metadata.expected_duration or metadata.processing_time)
end

local COMPILERS = { subflow = compile_subflow, approval = compile_approval, wait = compile_wait,
  parallel = compile_parallel }

---Compiles a step; nil when it is unusable. Everything wrong with it is reported.
---@param given table
---@param context { agents: table, settings: tidemill.Settings, source: tidemill.Source,
---  ladders: { no_match: tidemill.Rung[]?, no_input: tidemill.Rung[]? } }
---@param report fun(text: string, rule: string)
---@return tidemill.Step?
function M.compile(given, context, report)
  local kind = STEP_TYPES[given.step_type] and given.step_type or nil
  local clean = schema.check(fields.step, given, "step", report, kind)
  local metadata = type(given.metadata) ~= "table" and given.metadata ~= nil and {}
    or checked_metadata(given, report)
  if not clean or not metadata then return nil end
  local own = settings.of_step(given, context.settings)
  local step = {
    step_id = given.step_id, step_type = given.step_type, source = context.source,
    agent = agent_name(given.agent, "agent", context.agents, report),
    prompt = compile_template(given.prompt, "prompt", report),
    response = compile_template(given.response, "response", report),
    next_steps = copied(given.next_steps), metadata = metadata, classify = false,
    outcome = given.outcome, run = given.run, save_as = given.save_as, on_error = given.on_error,
    max_retries = own.max_retries, retry_delay_ms = own.retry_delay_ms,
    timeout_ms = own.timeout_ms, undo = given.undo, irreversible = given.irreversible,
    checkpoint = given.checkpoint,
  }
  if step.undo and step.irreversible then
    report("'undo' and irreversible = true exclude each other", "fields")
  end
  if given.input_schema then compile_input(step, given, context.settings, report) end
  compile_duration(step, metadata, report)
  if step.step_type == "user_input" and not given.prompt then
    report("a user_input needs a 'prompt': what the user is asked", "fields")
  end
  compile_logic(step, given, report)
  check_agent(step, given, context.agents, report)
  if given.review ~= nil then compile_review(step, given.review, context.agents, report) end
  if step.step_type == "decision" then check_decision(step, report) end
  if COMPILERS[kind] then COMPILERS[kind](step, given, report, context.settings) end
  if kind == "user_input" then compile_ladders(step, given, own, context.ladders, report) end
  check_classify(step, report)
  check_names(step, given, report)
  return step
end

return M
