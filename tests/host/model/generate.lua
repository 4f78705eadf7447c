-- Draws a system: a table that the model walks through, and the same as the text of a script. Flows
-- of all step types, with loops that end, branches, ladders, sub-flows and digressions.
-- luacheck: globals host
local M = {}

local random = math.random

local function chance(percent) return random(100) <= percent end

local function one_of(list) return list[random(#list)] end

---- what may be answered ----

-- What may be said to whatever is asked.
M.anything = { '"Ada"', '"Grace Hopper"', '"no"', '"x"', '"7"', '"red"',
  '{"age":36,"who":"Ada"}', '{"who":"Bob"}' }

-- Of each kind of input: its schema, answers that are taken, as JSON and as they stand in state,
-- and answers that are refused; `also`: what else of `anything` is taken.
local KINDS = {
  text = { schema = 'type = "text", min_length = 2', blank = "", also = { { '"red"', "red" } },
    right = { { '"Ada"', "Ada" }, { '"Grace Hopper"', "Grace Hopper" }, { '"no"', "no" } },
    wrong = { '"x"', '{"a":1}' } },
  integer = { schema = 'type = "integer", min = 1, max = 50', blank = host.null,
    right = { { '"7"', 7 }, { '" 12 "', 12 }, { '"+50"', 50 } },
    wrong = { '"0"', '"51"', '"seven"', '"2.5"' } },
  number = { schema = 'type = "number", max = 9.5', blank = host.null, also = { { '"7"', 7 } },
    right = { { '"2.5"', 2.5 }, { '"-3"', -3 }, { '"1e0"', 1.0 } },
    wrong = { '"9.6"', '"1,5"', '"nan"' } },
  boolean = { schema = 'type = "boolean"', blank = host.null, also = { { '"no"', false } },
    right = { { '"yes"', true }, { '"No"', false }, { '"1"', true } },
    wrong = { '"perhaps"', '"2"' } },
  date = { schema = 'type = "date", min = "2025-01-01"', blank = host.null,
    right = { { '"2026-11-22"', "2026-11-22" }, { '"2028-02-29"', "2028-02-29" } },
    wrong = { '"2027-02-29"', '"2024-12-31"', '"22.11.2026"' } },
  email = { schema = 'type = "email"', blank = host.null,
    right = { { '"ada@example.org"', "ada@example.org" } }, wrong = { '"ada"', '"a@b"' } },
  phone = { schema = 'type = "phone"', blank = host.null,
    right = { { '"+49 30 1234567"', "+49301234567" } }, wrong = { '"12"', '"call me"' } },
  choice = { blank = host.null,
    schema = 'type = "choice", options = { "red", { label = "dark blue", value = "blue" }, '
      .. '{ label = "Dark red", value = 3 } }',
    right = { { '"red"', "red" }, { '"Dark Blue"', "blue" }, { '"3"', 3 }, { '"2"', "blue" },
      { '"R"', "red" }, { '"dark b"', "blue" } },
    wrong = { '"dark"', '"green"', '"4"' } },
  -- Wrong and right answers to its fields: the first of text, the second an integer.
  form = { schema = 'type = "structured", fields = { '
      .. '{ name = "who", type = "text", required = true, min_length = 2, prompt = "Who?" }, '
      .. '{ name = "age", type = "integer", required = true, max = 99, prompt = "How old?" } }',
    fields = { "who", "age" }, questions = { who = "Who?", age = "How old?" },
    right = { { '{"age":36,"who":"Ada"}', { who = "Ada", age = 36 } },
      { '{"age":"7","who":"Bob"}', { who = "Bob", age = 7 } } },
    wrong = { '{"who":"Ada"}', '{"age":100,"who":"Ada"}', '{"age":3,"shoe":4,"who":"Ada"}' },
    by_field = { who = { right = { { '"Eve"', "Eve" } }, wrong = { '"x"' }, also = {
        { '"Ada"', "Ada" }, { '"Grace Hopper"', "Grace Hopper" }, { '"no"', "no" },
        { '"red"', "red" } } },
      age = { also = { { '"7"', 7 } }, right = { { '"41"', 41 } },
        wrong = { '"old"', '"100"' } } } },
}
M.kinds = KINDS

local NAMES = {}
for name in pairs(KINDS) do NAMES[#NAMES + 1] = name end
table.sort(NAMES)

---- steps ----

local DURATIONS = { 60, 600, 3600, 86400 }

-- A step behind position `at`, mostly the next one.
local function forward(flow, at)
  local to = chance(flow.plain and 85 or 70) and at + 1 or random(at + 1, flow.count + 1)
  return to > flow.count and "end" or flow.prefix .. to
end

local function anywhere(flow, at)
  return chance(30) and flow.prefix .. random(flow.count) or forward(flow, at)
end

local function silence_ladder(flow, at)
  local rungs, after = {}, 0
  for i = 1, random(3) do
    after = after + one_of(DURATIONS)
    rungs[i] = { after = after, say = ("Silent %d, {n}."):format(i) }
  end
  local last = rungs[#rungs]
  if chance(40) then last.say, last.go = nil, anywhere(flow, at) end
  if last.say and chance(30) then last.say, last.close = nil, true end
  return rungs
end

local function match_ladder(flow, at)
  local rungs = {}
  for i = 1, random(2) do rungs[i] = ("Hint %d, {t}."):format(i) end
  if chance(50) then rungs[#rungs + 1] = { go = anywhere(flow, at) } end
  return rungs
end

local make = {}

function make.user_input(step, flow, at)
  step.kind, step.required = chance(flow.plain and 50 or 15) and "text" or one_of(NAMES), chance(70)
  step.prompt = ("Ask %s, {t}."):format(step.id)
  step.save = step.kind == "text" and "t" or step.kind
  if chance(15) then step.save = nil end
  if chance(30) then step.no_match = match_ladder(flow, at) end
  if chance(40) then step.no_input = silence_ladder(flow, at) end
  if step.kind == "choice" and step.save and chance(60) then
    step.condition = "choice"
    step.branches = { red = anywhere(flow, at), ["3"] = forward(flow, at) }
    step.otherwise = forward(flow, at)
    if flow.side and chance(40) then step.branches.blue = "flow:" .. flow.side end
  end
end

function make.agent_response(step)
  step.response = ("Agent %s, {t} {n}."):format(step.id)
  step.own = chance(40) -- an agent of its own, which also writes state
end

-- Some measure what was answered, and one is picky about it.
local ACTIONS = { "count", "name", "once", "fail", "flaky", "loop", "measure", "picky" }
local PLAIN_ACTIONS = { "count", "name", "once", "flaky", "loop", "measure", "measure", "measure",
  "picky" }

function make.action(step, flow, at)
  step.does = one_of(flow.plain and PLAIN_ACTIONS or ACTIONS)
  if step.does == "loop" and (flow.loops == 2 or at == 1 or not flow.may_loop) then
    step.does = "count"
  end
  if step.does == "name" then step.save = "t" end
  local may_fail = step.does == "fail" or step.does == "picky"
  if may_fail and chance(50) then step.on_error = forward(flow, at) end
  if step.does ~= "fail" then
    step.undo, step.calls = chance(flow.undoes and 90 or 50), chance(flow.undoes and 80 or 60)
  end
  step.cannot_undo = step.undo and step.does ~= "flaky" and chance(flow.is_final and 40 or 10)
  if step.does ~= "fail" and not step.undo then step.irreversible = chance(10) end
  if step.calls and not step.undo and chance(15) then -- by the call itself
    step.irreversible, step.is_silent = true, true
  end
  if step.does == "loop" then
    flow.loops = flow.loops + 1
    step.counter = "k_" .. step.id
    flow.variables[step.counter] = 0
    step.branches = { again = flow.prefix .. random(at - 1), on = forward(flow, at) }
    step.otherwise = step.branches.on
  end
end

function make.decision(step, flow, at)
  step.by = one_of { "n", "t" }
  step.branches = { even = forward(flow, at) }
  step.otherwise = forward(flow, at)
end

function make.wait(step, flow, at)
  step.event = chance(50) and "paid" or nil
  if not step.event or chance(60) then step.time = one_of(DURATIONS) end
  if step.event and chance(60) then
    step.save = "event"
    step.branches = { event = forward(flow, at), timeout = anywhere(flow, at) }
    step.otherwise = forward(flow, at)
  end
end

function make.approval(step, flow, at)
  step.role, step.prompt = one_of { "clerk", "manager" }, ("Sign %s, {n}?"):format(step.id)
  if chance(60) then
    step.time, step.default = one_of(DURATIONS), one_of { "approved", "rejected" }
  end
  if chance(60) then step.save = "signed" end
  if chance(70) then
    step.branches = { approved = forward(flow, at), rejected = anywhere(flow, at) }
    step.otherwise = forward(flow, at)
  end
end

function make.subflow(step, flow, at)
  step.flow, step.arguments, step.result = flow.sub, { t = "{t}", n = "{n}" }, "t"
  if chance(70) then step.save = "t" end
  if chance(30) then step.on_error = forward(flow, at) end
end

-- Branches of an action and an agent; what they return is the output by branch.
function make.parallel(step)
  step.names = { "left", "right" }
  if chance(40) then step.names[3] = "up" end
  step.save, step.any = "offers", chance(25)
  step.calls = not step.any and chance(40)
end

local TYPES = { "user_input", "user_input", "user_input", "agent_response", "action", "action",
  "decision", "wait", "approval", "subflow", "parallel" }

-- Whose answers may be corrected wherever it stands.
local PLAIN = { "user_input", "user_input", "user_input", "agent_response", "action", "action",
  "action", "decision" }

-- Most of what is done can be undone.
local UNDOING = { "user_input", "user_input", "action", "action", "action", "approval" }

local function make_step(flow, at)
  local types = flow.undoes and UNDOING or flow.plain and PLAIN or TYPES
  local step = { id = flow.prefix .. at, type = one_of(types) }
  if step.type == "subflow" and not flow.sub then step.type = "user_input" end
  if at == 1 and flow.prefix == "m" and chance(50) then step.type = "user_input" end
  make[step.type](step, flow, at)
  local next_steps, seen = { forward(flow, at) }, {}
  step.onward = next_steps[1]
  seen[next_steps[1]] = true
  for _, target in pairs(step.branches or {}) do
    if not seen[target] and not target:find "^flow:" then next_steps[#next_steps + 1] = target end
    seen[target] = true
  end
  if step.otherwise and not seen[step.otherwise] then
    next_steps[#next_steps + 1] = step.otherwise
  end
  table.sort(next_steps, function(a, b)
    return a ~= b and (a == step.onward or b ~= step.onward and a < b)
  end)
  step.next_steps = next_steps
  return step
end

local function make_flow(id, prefix, count, more)
  local flow = { id = id, prefix = prefix, count = count, loops = 0, steps = {}, by = {},
    variables = { n = 0, t = "you" } }
  for name, value in pairs(more) do flow[name] = value end
  for at = 1, count do
    local step = make_step(flow, at)
    flow.steps[at], flow.by[step.id] = step, step
  end
  if chance(20) then flow.end_step = prefix .. random(count) end
  return flow
end

-- What one may say for a command.
local PHRASES = { back = "go back", restart = "start over", help = "help me", skip = "next please",
  cancel = "stop it", correct = "change {name} to {input}" }

---@return table system { flows = { main, …, by = { id → flow } } }
function M.system()
  local inner = make_flow("inner", "i", random(2), {})
  local sub = make_flow("sub", "u", random(3), { sub = "inner" })
  local side = make_flow("side", "e", random(2), {})
  local aside = make_flow("aside", "d", random(2), {})
  local undoes = chance(25)
  local plain, rollback = chance(40), (undoes or chance(70)) and random(4) or nil
  local main = make_flow("main", "m", plain and random(5, 10) or random(3, 7),
    { sub = "sub", side = "side", may_loop = true, plain = plain,
      rollback = rollback, is_final = not rollback, undoes = undoes })
  if chance(50) then main.interrupt, main.phrase = "aside", "by the way" end
  main.skips, main.cancels = chance(50), chance(30)
  main.silence = chance(30) and one_of(DURATIONS) or nil
  main.resumes, main.compensates = chance(20), chance(60)
  if chance(30) then main.phrases = PHRASES end
  local flows = { main, sub, inner, side, aside }
  for _, flow in ipairs(flows) do flows[flow.id] = flow end
  return { flows = flows, recovers = chance(20),
    concurrency = one_of { "queue", "reject", "merge", "interrupt" },
    life = chance(20) and one_of { 3600, 90000 } }
end

---- the script ----

local write = {}

local function list(texts)
  local quoted = {}
  for i, text in ipairs(texts) do quoted[i] = ("%q"):format(text) end
  return "{ " .. table.concat(quoted, ", ") .. " }"
end

local function sorted(t)
  local names = {}
  for name in pairs(t) do names[#names + 1] = name end
  table.sort(names)
  return names
end

local function rung(given)
  if type(given) == "string" then return ("%q"):format(given) end
  local parts = {}
  for _, name in ipairs { "after", "say", "go", "close" } do
    local value = given[name]
    if value ~= nil then
      parts[#parts + 1] = name .. " = " .. (type(value) == "string" and ("%q"):format(value)
        or tostring(value))
    end
  end
  return "{ " .. table.concat(parts, ", ") .. " }"
end

local function ladder(name, rungs)
  local parts = {}
  for i, given in ipairs(rungs) do parts[i] = rung(given) end
  return ("%s = { %s },"):format(name, table.concat(parts, ", "))
end

function write.user_input(step)
  local text = ("prompt = %q, input_schema = { %s, required = %s },"):format(step.prompt,
    KINDS[step.kind].schema, step.required)
  if step.no_match then text = text .. ladder("on_no_match", step.no_match) end
  if step.no_input then text = text .. ladder("on_no_input", step.no_input) end
  return text
end

function write.agent_response(step)
  if not step.own then return ('agent = "bot", response = %q,'):format(step.response) end
  return 'agent = "own",'
end

-- The calls of a step that is tried again are made once.
local BODIES = {
  count = "ctx.state.n = ctx.state.n + 1",
  name = 'return "name" .. ctx.state.n',
  once = "local a = ctx:once('a', function() return { n = ctx.state.n } end) "
    .. "ctx.state.n = ctx:once('b', function() return a.n + 2 end)",
  once_called = "local a = ctx:once('a', function() return { n = ctx.state.n } end) "
    .. "ctx.state.n = ctx:once('b', function() call(ctx, 'run') return a.n + 2 end)",
  fail = "ctx.state.n = 99 error 'no'",
  flaky = "ctx.state.n = ctx.state.n + 5 if ctx.step.attempt < 3 then error 'not yet' end",
  measure = "ctx.state.n = ctx.state.n + #ctx.state.t",
  picky = "if ctx.state.t == 'Ada' then error 'no' end ctx.state.n = ctx.state.n + 7",
}

local function write_undo(step)
  if step.undo then
    local first = step.cannot_undo and "error 'never' "
      or step.does == "flaky" and "if ctx.step.attempt < 3 then error 'not yet' end " or ""
    return (" undo = function(ctx) %s%s end,"):format(first,
      step.calls and "call(ctx, 'undo')" or "")
  end
  return step.is_silent and "" or (" irreversible = %s,"):format(step.irreversible or false)
end

function write.action(step)
  local body = BODIES[step.does]
  if step.does == "loop" then
    body = ("ctx.state.%s = ctx.state.%s + 1"):format(step.counter, step.counter)
  end
  if step.calls and step.does == "flaky" then
    body = "ctx:once('call', function() return call(ctx, 'run') end) " .. body
  elseif step.calls and step.does == "once" then
    body = BODIES.once_called
  elseif step.calls then
    local condition = step.does == "picky" and "ctx.state.t ~= 'Ada'" or "true"
    body = ("if %s then call(ctx, 'run') end "):format(condition) .. body
  end
  return ("run = function(ctx) %s end,%s%s"):format(body,
    step.does == "flaky" and " max_retries = 2, retry_delay = 0," or "", write_undo(step))
end

function write.decision(step)
  return ('condition = function(ctx) return %s %% 2 == 0 and "even" or "odd" end,')
    :format(step.by == "n" and "ctx.state.n" or "#ctx.state.t")
end

function write.wait(step)
  if not step.event then return ("seconds = %d,"):format(step.time) end
  return ("event = %q,"):format(step.event)
    .. (step.time and (" timeout = %d,"):format(step.time) or "")
end

function write.approval(step)
  return ("role = %q, prompt = %q,"):format(step.role, step.prompt)
    .. (step.time and (" timeout = %d, default = %q,"):format(step.time, step.default) or "")
end

function write.subflow(step)
  return ('flow = %q, arguments = { t = "{t}", n = "{n}" }, result = "t",'):format(step.flow)
end

function write.parallel(step)
  local parts = {}
  for i, name in ipairs(step.names) do
    parts[i] = ([[%s = {
        tm.ConversationStep { step_id = "%s_%s_1", step_type = "agent_response", agent = "bot",
          response = "Branch %s, {t}.", next_steps = { "%s_%s_2" } },
        tm.ConversationStep { step_id = "%s_%s_2", step_type = "action", irreversible = false,
          run = function(ctx) %s ctx.state.n = ctx.state.n + %d return ctx.state.n end },
      },]]):format(name, step.id, name, name, step.id, name, step.id, name,
      step.calls and "call(ctx, 'run')" or "", i)
  end
  return "irreversible = false, branches = { " .. table.concat(parts, "\n      ") .. " },"
    .. (step.any and ' join = "any",' or "")
end

local function write_branches(step)
  if not step.branches then return "" end
  local parts = {}
  for _, outcome in ipairs(sorted(step.branches)) do
    parts[#parts + 1] = ("[%q] = %q"):format(outcome, step.branches[outcome])
  end
  parts[#parts + 1] = ("default = %q"):format(step.otherwise)
  if step.condition then parts[#parts + 1] = ("condition = %q"):format(step.condition) end
  if step.counter then
    parts[#parts + 1] = ('condition = function(ctx) return ctx.state.%s %% 3 == 0 and "on" '
      .. 'or "again" end'):format(step.counter)
  end
  return ("conditional_logic = { %s },"):format(table.concat(parts, ", "))
end

local function write_step(step)
  return ("    tm.ConversationStep { step_id = %q, step_type = %q,\n      %s%s\n      %s%s "
    .. "next_steps = %s },\n"):format(step.id, step.type, write[step.type](step),
    write_branches(step), step.save and ("save_as = %q, "):format(step.save) or "",
    step.on_error and ("on_error = %q,"):format(step.on_error) or "", list(step.next_steps))
end

local function write_settings(flow)
  local parts = {}
  local function put(name, value)
    if value then parts[#parts + 1] = name .. " = " .. tostring(value) end
  end
  put("enable_rollback", flow.rollback ~= nil)
  put("max_rollback_steps", flow.rollback)
  put("allow_step_skipping", flow.skips)
  put("allow_early_termination", flow.cancels)
  put("interaction_timeout", flow.silence)
  put("resume_on_failure", flow.resumes)
  return ("  settings = { %s },\n%s"):format(table.concat(parts, ", "),
    flow.compensates and "  compensate_on_failure = true,\n" or "")
end

local function write_phrases(flow)
  local parts = {}
  for _, name in ipairs(sorted(flow.phrases or {})) do
    parts[#parts + 1] = ("%s = { %q }"):format(name, flow.phrases[name])
  end
  return ("  phrases = { %s },\n"):format(table.concat(parts, ", "))
end

local function write_flow(flow)
  local variables, steps = {}, {}
  for _, name in ipairs(sorted(flow.variables)) do
    variables[#variables + 1] = ("%s = %q"):format(name, flow.variables[name])
  end
  for i, step in ipairs(flow.steps) do steps[i] = write_step(step) end
  return ("  tm.ConversationFlow { flow_id = %q, start_step = %q,\n  variables = { %s },\n"
    .. "  migrate = function(state) return state end,\n%s%s%s%s"
    .. "  steps = {\n%s  } },\n"):format(flow.id, flow.steps[1].id, table.concat(variables, ", "),
    write_settings(flow), write_phrases(flow),
    flow.end_step and ("  end_steps = { %q },\n"):format(flow.end_step) or "",
    flow.phrase and ("  interrupts = { { flow = %q, phrases = { %q } } },\n")
      :format(flow.interrupt, flow.phrase) or "", table.concat(steps))
end

---@param system table
---@param version integer shows in the script, so that another one is another version
---@param outside string the address of all calls
---@return string
function M.script(system, version, outside)
  local flows = {}
  for i, flow in ipairs(system.flows) do flows[i] = write_flow(flow) end
  return ([[
local tm = require "tidemill"
local function call(ctx, what)
  local answer, err = ctx:http { url = "%s/" .. ctx.step.id .. "/" .. what }
  if not answer or answer.status ~= 200 then error(err or "refused") end
  return answer.status
end
local own = { respond = function(ctx)
  ctx.state.n = ctx.state.n + 3
  return "Own " .. ctx.step.id .. ", " .. ctx.state.t .. "."
end }
return tm.system { name = "drawn", config = { version = %d },
  orchestrator = { error_config = { auto_recovery = %s }, session_config = { concurrency = %q },
    performance_config = { max_workflow_duration = %d } },
  agents = { bot = tm.AssistantAgent { user_id = "bot" }, own = own },
  flows = {
%s  } }
]]):format(outside, version, system.recovers, system.concurrency, system.life or 0,
    table.concat(flows))
end

return M
