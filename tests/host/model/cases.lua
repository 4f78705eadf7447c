-- The cases: draws a system and inputs, gives them to the host and to the model, and compares. What
-- is random here is drawn from the seed and the number of the case alone.
-- luacheck: globals host
local dir, seed, only, count = ...
package.path = "tests/host/model/?.lua"
local generate = require "generate"
local model = require "model"

local random = math.random
local BEGAN, LOOKS = 1800000000000, 20000

local case -- { number, store, script, inputs, system, model, now, id, keys }

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
  request.id, request.now = case.id, case.now
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

-- What the outside was called for: each as often as it has counted, which is by its key; and not
-- oftener than that where no process died.
local function compare_calls(m)
  local found, keys, prefix = {}, {}, ("/%d/"):format(case.number)
  for _, call in ipairs(host.heard()) do
    local what = call[1]:sub(1, #prefix) == prefix and call[1]:sub(#prefix + 1)
    if what and not (case.has_died and keys[call[2]]) then found[what] = (found[what] or 0) + 1 end
    keys[call[2]] = true
  end
  return differ("the calls", found, m.calls)
end

-- Returns how the host stands otherwise than the model.
local function compare(m)
  return compare_head(read "head", m) or compare_messages(read("messages").items, m)
    or compare_steps(read("steps").items, m) or compare_calls(m)
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
  local answer, code, text = ask_surely(request)
  if not refused and not answer then return ("it was refused: %s %s"):format(code, text) end
  return differ("the refusal", code, refused), text
end

---- inputs ----

local inputs = {}

local function note(format, ...)
  table.insert(case.inputs, ("at %d: "):format(case.now - BEGAN) .. format:format(...))
end

local function keyed(request, refused)
  request.key = next_key()
  maybe_cut(request, 25)
  local found, answer = expect(request, refused)
  if found or refused or not chance(15) then return found end
  note("   the same again")
  request.cut = nil
  local again, repeated = expect(request, nil)
  return again or differ("the answer to the same request", repeated, answer)
end

local function answers_of(step)
  local kind = generate.kinds[step.kind]
  if not kind.fields or chance(40) then return kind.right, kind.wrong end
  local partial = case.model.frames[#case.model.frames].wait.partial
  for _, name in ipairs(kind.fields) do
    if not partial or partial[name] == nil then
      return kind.by_field[name].right, kind.by_field[name].wrong
    end
  end
end

local function current_step()
  local m = case.model
  local frame = m.frames[#m.frames]
  return m.step and case.system.flows[frame.flow].by[m.step]
end

local function say(raw)
  note("say %s", raw)
  return keyed({ op = "say", text = raw }, case.model:message(raw))
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
  local m, main = case.model, case.system.flows.main
  for _, frame in ipairs(m.frames) do
    if frame.flow == main.interrupt then return inputs.right() end
  end
  if not main.phrase then return inputs.right() end
  return say(('"%s"'):format(main.phrase))
end

local COMMANDS = { "back", "skip", "restart", "help", "cancel" }

local function command(name)
  note("command %s", name)
  return keyed({ op = "command", text = name }, case.model:command(name))
end

function inputs.phrase()
  local phrases = case.system.flows.main.phrases
  if not phrases then return inputs.command() end
  return say(('"%s"'):format(phrases[COMMANDS[random(#COMMANDS)]]))
end

function inputs.command() return command(COMMANDS[random(#COMMANDS)]) end
function inputs.back() return command "back" end

-- By the step's id, by what it is saved as, or a field of a form by its own name.
local function name_of(step)
  local fields = generate.kinds[step.kind].fields
  if fields and chance(50) then return fields[random(#fields)], true end
  return chance(50) and step.save or step.id
end

function inputs.correct()
  local asked = {}
  for _, step in ipairs(chance(10) and case.system.flows.main.steps or case.model:answered()) do
    if step.type == "user_input" then asked[#asked + 1] = step end
  end
  local step = asked[1] and asked[random(#asked)] or { id = "nothing", kind = "text" }
  local name, is_field = name_of(step)
  local kind = generate.kinds[step.kind]
  local answers = is_field and kind.by_field[name] or kind
  local right, wrong = answers.right, answers.wrong
  local raw = chance(85) and right[random(#right)][1] or wrong[random(#wrong)]
  note("correct %s: %s", name, raw)
  local refused = case.model:command("correct", name, raw)
  return keyed({ op = "command", text = "correct", name = name, input = raw }, refused)
end

function inputs.approve()
  local step = current_step()
  local role = step and chance(80) and step.role or "clerk"
  local approved = chance(60)
  note("the role %s says %s", role, approved)
  return keyed({ op = "approve", text = role, flag = approved and 1 or 0 },
    case.model:approve(role, approved))
end

function inputs.event()
  local name = chance(90) and "paid" or "lost"
  note("event %s", name)
  return keyed({ op = "event", text = name }, case.model:event(name))
end

-- These have no key that would say whether it has happened: after a crash it is looked. Where calls
-- are made, it may happen for some time after that.
local function unkeyed(request, act)
  local before = case.model:copy()
  local refused = act(case.model)
  if not differ("the calls", before.calls, case.model.calls) then maybe_cut(request, 20) end
  local answer, code, message = ask(request)
  if answer == nil and code == nil then
    start_host()
    if not compare(case.model) then return nil end
    local found = compare(before)
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
  local steps = random(3)
  note("rollback %d", steps)
  return unkeyed({ op = "rollback", flag = steps }, function(m) return m:rollback(steps) end)
end

local function await(request)
  local found
  for _ = 1, LOOKS do
    request.op = "wake"
    ask_surely(request)
    found = compare(case.model)
    if not found then return nil end
  end
  return "it never came there: " .. found
end

-- The clock goes on to the deadline.
function inputs.silence()
  local at = case.model:deadline()
  if not at then return nil end
  case.now = math.max(case.now, at)
  case.model.now = case.now
  note("silence")
  case.model:wake()
  local request = {}
  maybe_cut(request, 20)
  return await(request)
end

local function restart_host(late)
  local at = case.model:deadline()
  if late and at then
    case.now = math.max(case.now, at) + random(100000)
    case.model.now = case.now
    case.model:wake()
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
  reload = 3, migrate = 3, pause = 2, resume = 2, rollback = 4 }

local NAMES, TOTAL = {}, 0
for name, weight in pairs(WEIGHTS) do
  NAMES[#NAMES + 1] = name
  TOTAL = TOTAL + weight
end
table.sort(NAMES)

local function draw()
  local m = case.model
  local due = m:deadline()
  if due and due <= case.now then return "silence" end -- who went back has no time left
  if case.system.flows.main.plain and m.step and chance(50) then
    return chance(50) and "correct" or "right"
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
  local at = case.model:deadline()
  local most = at and at - case.now - 1 or 100000
  if most > 0 then case.now = case.now + random(0, math.min(most, 100000)) end
  case.model.now = case.now
end

local function begin()
  note("begin")
  case.model = model.start(case.system, case.now)
  case.model.version = case.version
  local request = { op = "begin", key = next_key() }
  maybe_cut(request, 10)
  local answer, code, message = ask_surely(request)
  if not answer then return ("it was refused: %s %s"):format(code, message) end
  case.id = answer.conversation_id
  return compare(case.model)
end

local function play()
  start_host()
  local found = begin()
  for _ = 1, random(4, 20) do
    if found or not case.model.step and chance(25) then return found end
    pass_time()
    found = inputs[draw()]() or compare(case.model)
  end
  return found
end

local function run_case(number)
  math.randomseed(seed, number)
  host.forget()
  os.remove(dir .. "/s.db")
  os.remove(dir .. "/s.db-wal")
  os.remove(dir .. "/s.db-shm")
  case = { number = number, store = chance(70) and "sqlite" or "memory", inputs = {}, now = BEGAN,
    keys = 0, version = 1, system = generate.system() }
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
