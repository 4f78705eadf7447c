-- The cases: draws a system and inputs, gives them to the host and to the model, and compares. What
-- is random here is drawn from the seed and the number of the case alone.
-- luacheck: globals host
local dir, seed, only, count = ...
package.path = "tests/host/model/?.lua"
local generate = require "generate"
local model = require "model"
local together = require "together"

local random = math.random
local BEGAN, LOOKS, MOST = 1800000000000, 20000, 3 -- conversations

-- { number, store, inputs, system, now, keys, version, refuses, lost_calls, all, one }; of all
-- conversations `one` is that with which something is done; of each: { id, model, waited, points }
local case

local function chance(percent) return random(100) <= percent end

local function script()
  return generate.script(case.system, case.version,
    ("http://127.0.0.1:%d/%d"):format(host.port, case.number))
end

---- comparing ----

local function text_of(value)
  if value == host.null then return "null" end
  if type(value) == "string" then return ("%q"):format(value) end
  if type(value) ~= "table" then return tostring(value) end
  local names, parts = {}, {}
  for name in pairs(value) do names[#names + 1] = name end
  table.sort(names, function(a, b) return tostring(a) < tostring(b) end)
  for i, name in ipairs(names) do parts[i] = ("%s=%s"):format(name, text_of(value[name])) end
  return "{" .. table.concat(parts, ", ") .. "}"
end

local function differ(what, is, should)
  local a, b = text_of(is), text_of(should)
  if a ~= b then return ("%s is\n  %s\nand should be\n  %s"):format(what, a, b) end
end

local function start_host()
  host.start(case.store)
end

-- A process that was to die may do so just after its answer: then another one is asked.
local function ask(request)
  request.id, request.now = case.one.id, case.now
  local answer, code, text = host.ask(request)
  if answer == nil and not code and not request.cut and request.op ~= "stop" then
    start_host()
    return host.ask(request)
  end
  return answer, code, text
end

local function read(part)
  local found, code, message = ask { op = part }
  return found or error(("reading %s: %s %s"):format(part, code, message), 0)
end

-- The newest first, as the host gives them.
local function newest(items, shown)
  local list = {}
  for i = #items, math.max(1, #items - 199), -1 do list[#list + 1] = shown(items[i]) end
  return list
end

local function compare_messages(is, m)
  local should = newest(m.messages, function(one) return one end)
  if #is ~= #should then
    return differ("the transcript", newest(is, function(one) return one.text end),
      newest(should, function(one) return one.text end))
  end
  for i, one in ipairs(should) do
    local text = one.text == model.ANY and model.ANY or is[i].text
    if one.text:sub(1, #model.ANY) == model.ANY and text ~= model.ANY then
      text = text:sub(-#one.text + #model.ANY - 1)
      if #is[i].text > #text and text:sub(1, 1) == "\n" then text = "*" .. text end
    end
    local found = differ(("message %d"):format(#should + 1 - i), is[i].role .. ": " .. text,
      one.role .. ": " .. one.text)
    if found then return found end
  end
end

local function compare_steps(is, m)
  local function shown(one) return (one.id or one.step_id) .. " " .. one.status end
  local found = {}
  for i, one in ipairs(is) do found[i] = shown(one) end
  return differ("the list of steps, the newest first,", found, newest(m.ran, shown))
end

local function compare_head(head, m)
  local prompt, should = head.prompt, m:prompt()
  if prompt == host.null then
    prompt = nil
  else
    prompt = { text = prompt.text, attempt = prompt.attempt,
      expires_at = prompt.expires_at ~= host.null and prompt.expires_at or nil }
  end
  return differ("the status", head.status, m.status)
    or differ("the step", head.current_step ~= host.null and head.current_step or nil, m.step)
    or differ("the state", head.state, m:state()) or differ("the prompt", prompt, should)
end

-- By all conversations, `m` being one of them.
local function calls_of_all(m)
  local calls = {}
  for _, one in ipairs(case.all) do
    for what, times in pairs((one == case.one and m or one.model).calls) do
      calls[what] = (calls[what] or 0) + times
    end
  end
  return calls
end

-- What the outside was called for: each as often as it has counted, which is by its key; and not
-- oftener than that where no process died.
local function compare_calls(m)
  local found, keys, prefix = {}, {}, ("/%d/"):format(case.number)
  for _, call in ipairs(host.heard()) do
    local what = call[1]:sub(1, #prefix) == prefix and call[1]:sub(#prefix + 1)
    if what and not (case.has_died and keys[call[2]]) then found[what] = (found[what] or 0) + 1 end
    keys[call[2]] = true
  end
  local should = calls_of_all(m)
  for what, most in pairs(case.lost_calls) do
    local more = (found[what] or 0) - (should[what] or 0)
    if more > 0 and more <= most then should[what] = found[what] end
  end
  return differ("the calls", found, should)
end

-- Returns how the host stands otherwise than the model.
local function compare(m)
  return compare_head(read "head", m) or compare_messages(read("messages").items, m)
    or compare_steps(read("steps").items, m) or compare_calls(m)
end

local function compare_all()
  local current, found = case.one, nil
  for i, one in ipairs(case.all) do
    case.one = one
    found = compare(one.model)
    if found and #case.all > 1 then found = ("of conversation %d %s"):format(i, found) end
    if found then break end
  end
  case.one = current
  return found
end

---- time ----

local function turn_to(now)
  case.now = now
  for _, one in ipairs(case.all) do one.model.now = now end
end

-- When something happens next by itself.
local function next_deadline()
  local next_at
  for _, one in ipairs(case.all) do
    local at = one.model:deadline()
    if at and (not next_at or at < next_at) then next_at = at end
  end
  return next_at
end

local function is_due(one)
  local at = one.model:deadline()
  return at and at <= case.now
end

local function wake_due()
  for _, one in ipairs(case.all) do
    if is_due(one) then one.model:wake() end
  end
end

---- the host and its ends ----

local function write_script()
  local file = assert(io.open(dir .. "/scripts/drawn/init.lua", "w"))
  file:write(script())
  file:close()
end

local function next_key()
  case.keys = case.keys + 1
  return ("key-%d"):format(case.keys)
end

-- Perhaps the process dies while it works on that; then another one is asked the same.
local function maybe_cut(request, percent)
  if case.store ~= "sqlite" or not chance(percent) then return end
  request.cut, request.cut_is_done, case.has_died = random(6), chance(50), true
  table.insert(case.inputs, ("   (the process dies at commit %d%s)"):format(request.cut,
    request.cut_is_done and ", done" or ""))
end

local function ask_surely(request)
  local answer, code, message = ask(request)
  if answer == nil and code == nil then
    start_host()
    request.cut = nil
    answer, code, message = ask(request)
    return answer, code, message, true
  end
  return answer, code, message
end

-- The answer must be as the model says: taken, or refused with that code.
local function expect(request, refused)
  local answer, code, text, has_died = ask_surely(request)
  if not refused and not answer then return ("it was refused: %s %s"):format(code, text) end
  return differ("the refusal", code, refused), text, has_died
end

---- inputs ----

local inputs = {}

local function note(format, ...)
  table.insert(case.inputs, ("at %d: "):format(case.now - BEGAN) .. format:format(...))
end

-- The same request once more: the answer of before, but a refusal is found anew.
local function repeated(request, act, refused, answer)
  note("   the same again")
  request.cut = nil
  if refused then return expect(request, act(case.one.model)) end
  local found, again = expect(request, nil)
  return found or differ("the answer to the same request", again, answer)
end

-- Where the process has died, an undo that fails may have been tried by then, and is tried again.
local function keyed(request, act)
  local refused = act(case.one.model)
  request.key = next_key()
  maybe_cut(request, 25)
  local found, answer, has_died = expect(request, refused)
  if has_died and refused == "rollback.undo_failed" and compare(case.one.model) then
    act(case.one.model)
  end
  if not found and chance(15) then found = repeated(request, act, refused, answer) end
  return found, answer
end

local function answers_of(step)
  local kind = generate.kinds[step.kind]
  if not kind.fields or chance(40) then return kind.right, kind.wrong end
  local partial = case.one.model.frames[#case.one.model.frames].wait.partial
  for _, name in ipairs(kind.fields) do
    if not partial or partial[name] == nil then
      return kind.by_field[name].right, kind.by_field[name].wrong
    end
  end
end

local function current_step()
  local m = case.one.model
  local frame = m.frames[#m.frames]
  return m.step and case.system.flows[frame.flow].by[m.step]
end

local function say(raw)
  note("say %s", raw)
  return keyed({ op = "say", text = raw }, function(m) return m:message(raw) end)
end

function inputs.right()
  local step = current_step()
  if not step or step.type ~= "user_input" then return say '"hello"' end
  local right = answers_of(step)
  return say(right[random(#right)][1])
end

function inputs.wrong()
  local step = current_step()
  if not step or step.type ~= "user_input" then return say '"hello"' end
  local _, wrong = answers_of(step)
  return say(wrong[random(#wrong)])
end

function inputs.blank()
  local step = current_step()
  if not step or step.type ~= "user_input" or step.required or step.kind == "form" then
    return inputs.wrong()
  end
  return say '""'
end

function inputs.digress()
  local m, main = case.one.model, case.system.flows.main
  for _, frame in ipairs(m.frames) do
    if frame.flow == main.interrupt then return inputs.right() end
  end
  if not main.phrase then return inputs.right() end
  return say(('"%s"'):format(main.phrase))
end

local COMMANDS = { "back", "skip", "restart", "help", "cancel" }

local function command(name)
  note("command %s", name)
  return keyed({ op = "command", text = name }, function(m) return m:command(name) end)
end

-- Nobody goes back where nobody can tell whether one may.
local function sure(name)
  return name == "back" and case.one.model:is_unsure(1) and "help" or name
end

function inputs.phrase()
  local phrases = case.system.flows.main.phrases
  if not phrases then return inputs.command() end
  return say(('"%s"'):format(phrases[sure(COMMANDS[random(#COMMANDS)])]))
end

function inputs.command() return command(sure(COMMANDS[random(#COMMANDS)])) end
function inputs.back() return command(sure "back") end

-- By the step's id, by what it is saved as, or a field of a form by its own name.
local function name_of(step)
  local fields = generate.kinds[step.kind].fields
  if fields and chance(50) then return fields[random(#fields)], true end
  return chance(50) and step.save or step.id
end

local function is_begun()
  local m = case.one.model
  local frame = m.frames[#m.frames]
  return m.status == "waiting_input" and frame.wait and frame.wait.partial ~= nil
end

function inputs.correct()
  local asked = {}
  for _, step in ipairs(chance(10) and case.system.flows.main.steps or case.one.model:answered()) do
    if step.type == "user_input" then asked[#asked + 1] = step end
  end
  local step = is_begun() and chance(60) and current_step() or asked[1] and asked[random(#asked)]
    or { id = "nothing", kind = "text" }
  local name, is_field = name_of(step)
  local kind = generate.kinds[step.kind]
  local answers = is_field and kind.by_field[name] or kind
  local right, wrong = answers.right, answers.wrong
  local raw = chance(85) and right[random(#right)][1] or wrong[random(#wrong)]
  local words = step.type and raw:match '^"(..*)"$'
  if words and case.system.flows.main.phrases and chance(50) then
    return say(('"change %s to %s"'):format(name, words))
  end
  note("correct %s: %s", name, raw)
  return keyed({ op = "command", text = "correct", name = name, input = raw },
    function(m) return m:command("correct", name, raw) end)
end

function inputs.approve()
  local step = current_step()
  local role = step and chance(80) and step.role or "clerk"
  local approved = chance(60)
  note("the role %s says %s", role, approved)
  return keyed({ op = "approve", text = role, flag = approved and 1 or 0 },
    function(m) return m:approve(role, approved) end)
end

function inputs.event()
  local name = chance(90) and "paid" or "lost"
  note("event %s", name)
  return keyed({ op = "event", text = name }, function(m) return m:event(name) end)
end

-- These have no key that would say whether it has happened: after a crash it is looked, until what
-- had begun has come to its end. Where calls are made, it may happen for some time after that.
local function unkeyed(request, act)
  local before = case.one.model:copy()
  local refused = act(case.one.model)
  if not differ("the calls", before.calls, case.one.model.calls) then maybe_cut(request, 20) end
  local answer, code, message = ask(request)
  if answer == nil and code == nil then
    start_host()
    local found
    for _ = 1, LOOKS do
      if not compare(case.one.model) then return nil end
      found = compare(before)
      if not found then break end
      ask { op = "wake" }
    end
    if found then return "neither before nor after it: " .. found end
    request.cut = nil
    answer, code, message = ask(request)
  end
  if not refused and not answer then return ("it was refused: %s %s"):format(code, message) end
  return differ("the refusal", code, refused)
end

function inputs.pause()
  note("pause")
  return unkeyed({ op = "pause" }, function(m) return m:pause() end)
end

function inputs.resume()
  note("resume")
  return unkeyed({ op = "resume" }, function(m) return m:resume() end)
end

function inputs.rollback()
  local steps, force = random(3), chance(25)
  force = force or case.one.model:is_unsure(steps)
  note("rollback %d%s", steps, force and " by force" or "")
  return keyed({ op = "rollback", flag = steps, text = force and "force" or "" },
    function(m) return m:rollback(steps, force) end)
end

-- What undoes something is refused outside, or taken again.
function inputs.refusal()
  case.refuses = not case.refuses
  for _, one in ipairs(case.all) do one.model.refused = case.refuses end
  host.refuse(case.refuses)
  note("the outside %s to undo anything", case.refuses and "refuses" or "does not refuse")
end

-- The first is mostly right at the prompt that waits; nobody knows what the others will be said to.
local function draw_messages()
  local step, said = current_step(), {}
  for i = 1, random(2, 3) do
    said[i] = { key = next_key(), raw = generate.anything[random(#generate.anything)] }
  end
  if step and step.type == "user_input" and chance(80) then
    local right = answers_of(step)
    said[1].raw = right[random(#right)][1]
  end
  return said
end

-- Where they only wait the process may die, too: then they are sent again.
local function send_at_once(said)
  local requests = {}
  for i, message in ipairs(said) do
    requests[i] = { op = "say", id = case.one.id, now = case.now, text = message.raw,
      key = message.key }
  end
  local last = requests[#requests]
  if case.system.concurrency == "queue" then maybe_cut(last, 25) end
  local answers = host.ask_all(requests)
  if not answers then
    start_host()
    last.cut = nil
    answers = host.ask_all(requests)
  end
  for i, answer in ipairs(answers) do
    said[i].code, said[i].text = answer.code, answer.text
  end
end

local function step_of(system, id)
  for _, flow in pairs(system.flows) do
    if flow.by[id] then return flow.by[id] end
  end
  return {} -- in a branch: it may stay
end

-- Nobody has its `undo` run any more.
local function stays(system, one)
  local step = step_of(system, one.step_id)
  return one.status == "completed" and (step.undo or step.irreversible)
end

-- Steps of turns that were given up are there as far as rows were written: `may`, by id and status.
-- The turn that was not given up is the last one; `waited` knows nothing of it, or is at its end.
local function absorb(m, waited, may, marks)
  local is, at, mark = {}, #m.ran, #marks == 1 and marks[1] or {}
  local behind = #m.ran - #waited.ran
  for _, one in ipairs(read("steps").items) do
    local step = one.step_id .. " " .. one.status
    if at > 0 and m.ran[at].id .. " " .. m.ran[at].status == step then
      at = at - 1
    elseif (may[step] or 0) > 0 then
      may[step] = may[step] - 1
      if stays(case.system, one) then mark.irreversible, mark.unsure = true, nil end
    else
      return
    end
    table.insert(is, 1, { id = one.step_id, status = one.status })
  end
  m.ran, waited.ran = is, table.move(is, 1, #is - behind, 1, {})
end

-- What the turn would have done; the outside may hear of that as late as it likes.
local function lose(may, m, raw)
  local ghost, unsure = m:copy(), false
  ghost:message(raw)
  for i = #m.ran + 1, #ghost.ran do
    local step = ghost.ran[i].id .. " " .. ghost.ran[i].status
    may[step] = (may[step] or 0) + 1
    unsure = unsure or model.has_effects(step_of(case.system, ghost.ran[i].id))
  end
  for what, times in pairs(ghost.calls) do
    case.lost_calls[what] = (case.lost_calls[what] or 0) + times - (m.calls[what] or 0)
  end
  return m:lose(unsure)
end

-- Returns how it has come otherwise than by that play.
local function compare_play(play, said)
  local m, may, marks, waited = case.one.model:copy(), {}, {}, case.one.waited
  for _, turn in ipairs(play) do
    local raws = {}
    for i, number in ipairs(turn) do raws[i] = said[number].raw end
    local raw, code = together.join(raws), "conversation.interrupted"
    if turn.lost then marks[#marks + 1] = lose(may, m, raw) else code = m:message(raw) end
    if m.step then waited = m:copy() end
    for _, number in ipairs(turn) do
      local found = differ("the refusal", said[number].code, code)
        or differ("the answer to both", not code and said[number].text, not code
          and said[turn[1]].text)
      if found then return found end
    end
  end
  if next(may) then absorb(m, waited, may, marks) end
  local found = compare(m)
  if not found then case.one.model, case.one.waited = m, waited end
  return found
end

function inputs.together()
  if case.one.model.status ~= "waiting_input" and chance(80) then return inputs.right() end
  local said = draw_messages()
  local first = said[1]
  if case.system.concurrency ~= "interrupt" and chance(25) then
    said[#said + 1] = { key = first.key, raw = first.raw }
  end
  for _, message in ipairs(said) do note("at once: say %s (%s)", message.raw, message.key) end
  send_at_once(said)
  local last, found = said[#said], nil
  if last.key == first.key and not first.code then -- what is refused uses up no key
    said[#said] = nil
    found = differ("the answer to the same request", last.text, first.text)
  end
  for _, play in ipairs(found and {} or together.plays(case.system.concurrency, said)) do
    found = compare_play(play, said)
    if not found then return nil end
  end
  return found or "the refusals cannot be"
end

-- A checkpoint of which it is known how the conversation stood there.
local function draw_point()
  local points, ids = case.one.points, {}
  for _, item in ipairs(chance(50) and read("checkpoints").items or {}) do
    if points[item.checkpoint_id] then ids[#ids + 1] = item.checkpoint_id end
  end
  if #ids == 0 then return nil, case.one.waited end
  local id = ids[random(#ids)]
  return id, points[id]
end

-- The conversation goes on twice, from where it waits or has waited.
function inputs.fork()
  if #case.all == MOST then return inputs.right() end
  local checkpoint, point = draw_point()
  note("fork%s", checkpoint and (" from %s"):format(checkpoint) or "")
  local found, answer = keyed({ op = "fork", text = checkpoint }, function()
    return not point and "fork.nothing" or nil
  end)
  if found or not point then return found end
  local made = { id = answer:match '"conversation_id":"(.-)"', model = point:fork(case.now),
    points = {} }
  made.model.refused = case.refuses
  case.all[#case.all + 1] = made
end

local function await(request)
  local found
  for _ = 1, LOOKS do
    request.op = "wake"
    ask_surely(request)
    found = compare_all()
    if not found then return nil end
  end
  return "it never came there: " .. found
end

-- The clock goes on to the next deadline.
function inputs.silence()
  local at = next_deadline()
  if not at then return nil end
  turn_to(math.max(case.now, at))
  note("silence")
  wake_due()
  local request = {}
  maybe_cut(request, 20)
  return await(request)
end

local function restart_host(late)
  local at = next_deadline()
  if late and at then
    turn_to(math.max(case.now, at) + random(100000))
    wake_due()
  end
  start_host()
  if late and at then return await {} end
end

-- The host stops, and comes back, perhaps after the deadline.
function inputs.down()
  if case.store ~= "sqlite" then return inputs.silence() end
  local late = chance(50)
  note("the host is down%s", late and " when the deadline passes" or "")
  ask { op = "stop" }
  return restart_host(late)
end

function inputs.crash()
  if case.store ~= "sqlite" then return inputs.silence() end
  local late = chance(50)
  note("the host is killed%s", late and ", and back after the deadline" or "")
  host.kill()
  case.has_died = true
  return restart_host(late)
end

-- Running conversations keep their version, changed or not.
function inputs.reload()
  if chance(60) then
    case.version = case.version + 1
    write_script()
  end
  note("reload, version %d", case.version)
  return expect({ op = "reload" }, nil)
end

-- No deadline has passed, so nothing happens.
function inputs.look()
  note("the host looks at deadlines")
  for _ = 1, 6 do ask { op = "wake" } end
end

-- To the version that is loaded.
function inputs.migrate()
  note("migrate to version %d", case.version)
  return unkeyed({ op = "migrate" }, function(m) return m:migrate(case.version) end)
end

-- How often each one is drawn.
local WEIGHTS = { right = 34, wrong = 10, blank = 4, digress = 5, command = 7, phrase = 3,
  back = 7, correct = 10, approve = 6, event = 6, silence = 8, look = 4, down = 2, crash = 3,
  reload = 3, migrate = 3, pause = 2, resume = 2, rollback = 8, refusal = 4, fork = 6,
  together = 10 }

local NAMES, TOTAL = {}, 0
for name, weight in pairs(WEIGHTS) do
  NAMES[#NAMES + 1] = name
  TOTAL = TOTAL + weight
end
table.sort(NAMES)

local function draw()
  local m = case.one.model
  if case.system.flows.main.plain and m.step and chance(50) then
    return chance(50) and "correct" or "right"
  end
  if case.system.flows.main.undoes and chance(35) then
    return chance(75) and "rollback" or "refusal"
  end
  if m.status == "paused" and chance(60) then return "resume" end
  if m.status == "waiting_approval" and chance(50) then return "approve" end
  if m.status == "waiting_event" and chance(50) then return "event" end
  if m.status == "sleeping" and chance(35) then return "silence" end
  local at = random(TOTAL)
  for _, name in ipairs(NAMES) do
    at = at - WEIGHTS[name]
    if at <= 0 then return name end
  end
end

---- one case ----

-- Some time passes, but no deadline.
local function pass_time()
  local at = next_deadline()
  local most = at and at - case.now - 1 or 100000
  if most > 0 then turn_to(case.now + random(0, math.min(most, 100000))) end
end

-- What a fork may go on from.
local function keep_points()
  for _, one in ipairs(case.all) do
    if one.model.step and (not one.waited or one.model.stood == case.now) then
      case.one, one.waited = one, one.model:copy()
      local last = read("checkpoints").items[1]
      if last and last.revision == read("head").revision then
        one.points[last.checkpoint_id] = one.waited
      end
    end
  end
end

-- Who went back may have no time left.
local function settle()
  keep_points()
  for _, one in ipairs(case.all) do
    if is_due(one) then return inputs.silence() end
  end
  return compare_all()
end

local function begin()
  note("begin")
  case.one = { model = model.start(case.system, case.now), points = {} }
  case.all = { case.one }
  case.one.model.version = case.version
  local request = { op = "begin", key = next_key() }
  maybe_cut(request, 10)
  local answer, code, message = ask_surely(request)
  if not answer then return ("it was refused: %s %s"):format(code, message) end
  case.one.id = answer.conversation_id
  return settle()
end

local function play()
  start_host()
  local found = begin()
  for _ = 1, random(4, 20) do
    if found or not case.one.model.step and chance(25) then return found end
    case.one = case.all[random(#case.all)]
    pass_time()
    found = inputs[draw()]() or settle()
  end
  return found
end

local function run_case(number)
  math.randomseed(seed, number)
  host.forget()
  host.refuse(false)
  os.remove(dir .. "/s.db")
  os.remove(dir .. "/s.db-wal")
  os.remove(dir .. "/s.db-shm")
  case = { number = number, store = chance(70) and "sqlite" or "memory", inputs = {}, now = BEGAN,
    keys = 0, version = 1, lost_calls = {}, system = generate.system() }
  write_script()
  local ok, found = xpcall(play, debug.traceback)
  if not found then
    ask { op = "stop" }
    return nil
  end
  if ok then host.kill() end
  return ("TIDEMILL_SEED=%d TIDEMILL_CASE=%d, store %s\n\n%s\n%s\n%s\n"):format(seed, number,
    case.store, script(), table.concat(case.inputs, "\n"), found)
end

io.write(("seed %d\n"):format(seed))
for number = only > 0 and only or 1, only > 0 and only or count do
  local failed = run_case(number)
  if failed then return failed end
end
