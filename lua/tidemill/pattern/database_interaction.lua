--- DATABASE_INTERACTION: the user asks, something is looked up, and an agent answers with what was
--- found; what changes data is done only when somebody has said yes to it.
local builder = require "tidemill.pattern.builder"
local definition = require "tidemill.definition"
local json = require "host.json"
local ladder = require "tidemill.ladder"
local paths = require "tidemill.check.paths"

local M = {}

M.fields = builder.fields {
  prompt = { type = "string" }, questions = { type = "list" },
  query = { type = "function", required = true }, save_as = { type = "string" },
  agent = { type = "any", required = true }, instruction = { type = "string" },
  response = { type = "string" }, empty = { type = "string" }, write = { type = "function" },
  undo = { type = "function" }, irreversible = { type = "boolean" }, confirm = { type = "string" },
  written = { type = "string" }, again = { type = "string" }, stop = { type = "names" },
  farewell = { type = "string" },
}

local FOUND, EMPTY = "found", "Nothing was found."

--- Names in state that are not the script's.
local TAKEN = { question = true, answer = true, confirmed = true, result = true, another = true }

local function check_names(given, flow, wrong)
  local save_as, taken = given.save_as or FOUND, {}
  for name in pairs(TAKEN) do taken[name] = true end
  if not definition.is_state_name(save_as) or TAKEN[save_as] then
    wrong(("'save_as' = '%s' %s"):format(save_as, TAKEN[save_as] and "is taken"
      or "is no name of letters, digits and _"))
  end
  taken[save_as] = true
  if given.questions then flow:check_questions(given.questions, "questions", taken) end
end

local function check_write(given, wrong)
  if given.write and not given.confirm then
    wrong "'confirm' is missing: what the user is asked before 'write' changes anything"
  end
  for _, name in ipairs { "undo", "irreversible", "confirm", "written" } do
    if given[name] ~= nil and not given.write then
      wrong(("'%s' belongs to 'write', which is missing"):format(name))
    end
  end
end

local function is_sound(given, flow)
  local function wrong(text) flow.report("database_interaction: " .. text, "fields") end
  if (given.prompt == nil) == (given.questions == nil) then
    wrong "give 'prompt', which asks for one text, or 'questions', and not both"
  end
  if given.stop and not given.prompt then
    wrong "'stop' are words that answer 'prompt'; after 'questions' it is 'again' that asks"
  elseif given.stop and #given.stop == 0 then
    wrong "'stop' must name at least one word that ends it"
  end
  check_names(given, flow, wrong)
  check_write(given, wrong)
  return #flow.problems == 0
end

---- the steps ----

--- Nothing of an earlier question stays where nothing is found.
local function looker(query, name)
  return function(ctx)
    local found, err = query(ctx)
    if found == nil and err == nil then ctx.state[name] = nil end
    return found, err
  end
end

--- A condition: nothing is also false, an empty text and an empty list.
local function has_found(ctx)
  local found = ctx.output
  local none = found == nil or found == false or found == "" or found == json.null
    or type(found) == "table" and next(found) == nil
  return none and "nothing" or "found"
end

local function ask_text(given, flow, id, prompt, last)
  flow:step { step_id = id, step_type = "user_input", prompt = prompt, save_as = "question",
    input_schema = { type = "text", required = true }, next_steps = { "look_up", last },
    conditional_logic = { condition = builder.stops_at(given.stop), stop = last,
      default = "look_up" } }
end

local function ask_questions(given, flow)
  for i, question in ipairs(given.questions) do
    local behind = given.questions[i + 1]
    flow:ask("ask_" .. question.name, question,
      { next_steps = { behind and "ask_" .. behind.name or "look_up" } })
  end
end

local function ask_yes_or_no(flow, id, prompt, name, yes, no)
  flow:step { step_id = id, step_type = "user_input", prompt = prompt, save_as = name,
    input_schema = { type = "boolean", required = true }, next_steps = { yes, no },
    conditional_logic = { condition = name, [true] = yes, [false] = no } }
end

--- An agent of the script's own gets the text as what it is to say; others say it as it is.
local function tell(given, flow, id, text, behind)
  local agent = given.agent
  local is_custom = type(agent) == "function"
    or type(agent) == "table" and type(agent.respond) == "function"
  flow:say(id, { agent = agent, instruction = is_custom and text or nil,
    response = not is_custom and text or nil }, { next_steps = { behind } })
end

local function add_look_up(given, flow, behind)
  local name = given.save_as or FOUND
  flow:step { step_id = "look_up", step_type = "action", run = looker(given.query, name),
    save_as = name, next_steps = { "answer", "tell_empty" },
    conditional_logic = { condition = has_found, nothing = "tell_empty", default = "answer" } }
  flow:say("answer", given,
    { save_as = "answer", next_steps = { given.write and "confirm" or behind } })
  tell(given, flow, "tell_empty", given.empty or EMPTY, behind)
end

local function add_write(given, flow, behind)
  ask_yes_or_no(flow, "confirm", given.confirm, "confirmed", "write", behind)
  flow:step { step_id = "write", step_type = "action", run = given.write, undo = given.undo,
    irreversible = given.irreversible, save_as = "result",
    next_steps = { given.written and "tell_written" or behind } }
  if given.written then tell(given, flow, "tell_written", given.written, behind) end
end

---@param given table
---@param flow tidemill.Builder
function M.build(given, flow)
  if not is_sound(given, flow) then return end
  local last = given.farewell and "farewell" or "end"
  local first = given.prompt and "ask" or "ask_" .. given.questions[1].name
  local behind = given.prompt and (given.again and "ask_again" or "ask")
    or given.again and "another" or last
  if given.prompt then ask_text(given, flow, "ask", given.prompt, last) end
  if given.questions then ask_questions(given, flow) end
  add_look_up(given, flow, behind)
  if given.write then add_write(given, flow, behind) end
  if behind == "ask_again" then ask_text(given, flow, behind, given.again, last) end
  if behind == "another" then ask_yes_or_no(flow, behind, given.again, behind, first, last) end
  if given.farewell then tell(given, flow, "farewell", given.farewell, "end") end
end

---- the shape ----

local function each(flow, is_one)
  local found = {}
  for _, id in ipairs(flow.step_order) do
    if is_one(flow.steps[id]) then found[#found + 1] = flow.steps[id] end
  end
  return found
end

local function changes(step)
  if step.undo or step.irreversible then return true end
  for _, fork in ipairs(step.forks or {}) do
    if fork.flow and #each(fork.flow, changes) > 0 then return true end
  end
  return false
end

local function is_look_up(step)
  return step.step_type == "action" and not changes(step)
end

local function asks(step)
  return step.step_type == "user_input"
end

local function names_in(template, name)
  for _, used in ipairs(type(template) == "table" and template.names or {}) do
    if used.name:match "^[^.]+" == name then return true end
  end
  return false
end

--- An agent of the script's own sees the whole state.
local function tells(system, step, name)
  if step.step_type ~= "agent_response" then return false end
  local agent = step.agent and system.agents[step.agent]
  if agent and agent.respond then return true end
  for _, needed in ipairs(step.required_context) do
    if needed:match "^[^.]+" == name then return true end
  end
  return names_in(step.prompt, name) or names_in(step.response, name)
end

local function is_told(system, flow, step)
  for id in pairs(paths.reach(flow, step.step_id)) do
    if tells(system, flow.steps[id], step.save_as) then return true end
  end
  return false
end

--- What is wrong with the look-up that is nearest to being one; nil when one is as it should be.
local function look_up_problem(system, flow)
  local nearest, problem
  for _, step in ipairs(each(flow, is_look_up)) do
    if not step.save_as then
      nearest = nearest or step
      problem = problem or "keeps what it finds under no name; name it by save_as"
    elseif is_told(system, flow, step) then
      return nil
    else
      nearest = step
      problem = ("finds something as '%s', and no agent behind it says anything of that; name it "
        .. "in the prompt or response of an agent_response"):format(step.save_as)
    end
  end
  return nearest, problem or "there is no step of the type 'action' that looks something up"
end

local function check_questions(flow, report)
  for _, question in ipairs(each(flow, asks)) do
    for id in pairs(paths.reach(flow, question.step_id)) do
      if is_look_up(flow.steps[id]) and flow.steps[id].save_as then return end
    end
  end
  report(nil, "there is no user_input that leads to a look-up: nobody asks for anything")
end

---- what changes data ----

local CONFIRMS = { boolean = true, choice = true }

--- Somebody decides there: his answer chooses among the branches.
local function is_decision(step)
  if step.step_type == "approval" then return step.branches ~= nil end
  local own = type(step.condition) == "function" or step.condition == step.save_as
  return asks(step) and CONFIRMS[step.input.type] and step.branches ~= nil and own
end

--- Whether some answer leads not to `target`, and nothing but answers does.
local function guards(flow, gate, target)
  local id, may_refuse = gate.step_id, false
  local function leads(from)
    if not flow.steps[from] or from == id then return false end
    return from == target
      or paths.reach(flow, from, function(one) return one == id end)[target] ~= nil
  end
  for _, from in ipairs(paths.targets(gate)) do may_refuse = may_refuse or not leads(from) end
  for _, rungs in ipairs { gate.no_match or {}, gate.no_input or {} } do
    for _, from in ipairs(ladder.targets(rungs)) do
      if leads(from) then return false end
    end
  end
  return may_refuse and not leads(gate.on_error)
end

--- A way to it past everybody who could have said no: from the start, or from a question behind it.
local function way_past(flow, step)
  local target, guarded = step.step_id, {}
  for _, gate in ipairs(each(flow, is_decision)) do
    guarded[gate.step_id] = guards(flow, gate, target)
  end
  local function stop(id) return guarded[id] == true end
  local way = paths.way(flow, target, stop)
  if way then return way end
  for id in pairs(paths.reach(flow, target, stop)) do
    local again = asks(flow.steps[id]) and not stop(id) and paths.reach(flow, id, stop)
    if again and again[target] then return ("%s, …, %s"):format(id, target) end
  end
end

local function check_changes(flow, step, report)
  local way = way_past(flow, step)
  if not way then return end
  local why = step.undo and "it has undo" or step.irreversible and "it is irreversible"
    or "a step of its branches does"
  report(step, ("changes data (%s), and nobody has to say yes to it on the way %s; let a "
    .. "user_input of the type 'boolean' or 'choice', or an approval, branch before it")
    :format(why, way))
end

---@param flow tidemill.Flow
---@param report fun(step: tidemill.Step?, text: string)
---@param system tidemill.System
function M.check(flow, report, system)
  local step, problem = look_up_problem(system, flow)
  if problem then report(step, problem) else check_questions(flow, report) end
  for _, one in ipairs(each(flow, changes)) do check_changes(flow, one, report) end
end

return M
