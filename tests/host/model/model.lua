-- The reference model: how one conversation of a drawn system (generate.lua) must stand after each
-- input, by what CONTRACT.md says a word means. It keeps whole copies where the host keeps a
-- journal, and knows nothing of how the host does it.
--
-- What comes in is a method. It returns nil, or the code with which the host must refuse it; then
-- nothing has changed, but for what a rollback undid before an undo failed.
-- luacheck: globals host
local generate = require "generate"

local Model = {}
Model.__index = Model

local ANY = "*\n" -- a message begins with a reason of the host's own words
local AGAIN = "That did not work. Send any message to try again."

local function copy(value)
  if type(value) ~= "table" then return value end
  local made = {}
  for key, member in pairs(value) do made[key] = copy(member) end
  return made
end

local function top(m) return m.frames[#m.frames] end

local function is_over(m) return m.status == "completed" or m.status == "expired"
  or m.status == "cancelled" or m.status == "failed" end

local function render(m, text)
  return (text:gsub("{(%w+)}", function(name) return tostring(top(m).state[name]) end))
end

local function say(m, role, text)
  m.messages[#m.messages + 1] = { role = role, text = text }
end

local function list_copy(list)
  return table.move(list, 1, #list, 1, {})
end

-- What has run is never taken back; `kept` is what of it one could go back over, where nothing is
-- left to be undone of what was.
local function ran(m, id, status, step)
  table.insert(m.ran, { id = id, status = status })
  m.kept[#m.kept + 1] = status == "completed" and step or {}
end

-- A turn is given up: whether it has left something outside that stays, `unsure` says. Returns what
-- stands for it among what is kept; `irreversible` there is a certain yes.
---@param unsure boolean
---@return { irreversible: boolean?, unsure: boolean }
function Model:lose(unsure)
  local mark = { unsure = unsure }
  self.kept[#self.kept + 1] = mark
  return mark
end

-- From here on the way is not that of completed steps: the way of an answer is never over this.
local function stray(m, failed)
  if #m.frames > 1 then return end
  local last = m.way[#m.way]
  if failed and last and last.failed == failed then return end
  m.way[#m.way + 1] = { failed = failed }
end

-- One that was completed, on the way that the conversation's own flow has come since it began, was
-- migrated or was started over: what correcting an answer looks at.
local function pass(m, step, output, onward, said)
  if #m.frames > 1 then return end
  local last = m.way[#m.way]
  if last and last.failed == step.id then table.remove(m.way) end -- and now it was
  m.way[#m.way + 1] = { step = step, output = output, said = said, before = m.frames[1].before,
    after = copy(m.frames[1].state), onward = onward, at = #m.kept }
end

-- What the outside hears, by step and whether it was run or undone.
local function call(m, id, what)
  local name = id .. "/" .. what
  m.calls[name] = (m.calls[name] or 0) + 1
end

-- Undoes what is kept there. Returns whether there is nothing left of it.
local function undo(m, at)
  local step = m.kept[at]
  if not step.undo then return true end
  for _ = 1, step.does == "flaky" and 2 or 0 do
    table.insert(m.ran, { id = step.id, status = "failed" })
  end
  if step.calls and not step.cannot_undo then call(m, step.id, "undo") end
  local fails = step.cannot_undo or step.calls and m.refused
  table.insert(m.ran, { id = step.id, status = fails and "failed" or "completed" })
  if not fails then m.kept[at] = {} end
  return not fails
end

local function new_frame(flow, given)
  local state = copy(flow.variables)
  for name, value in pairs(given) do
    if value ~= host.null then state[name] = copy(value) end
  end
  return { flow = flow.id, state = state }
end

-- What is over takes nothing any more.
local function not_waiting(m)
  return is_over(m) and "conversation.finished" or "conversation.not_waiting"
end

---- waiting ----

local SOMEBODY = { waiting_input = true, waiting_approval = true, waiting_event = true }

-- Where it begins to wait for somebody, one can go back to.
local function keep_place(m)
  local wait = top(m).wait
  if not SOMEBODY[m.status] or wait.shown then return end
  wait.shown, m.gone = true, 0
  for i = 1, #m.frames - 1 do
    if m.frames[i].wait then m.frames[i].wait.shown = nil end -- repeated, it is another place
  end
  m.places[#m.places + 1] = { now = m.now, status = m.status, step = m.step,
    frames = copy(m.frames), messages = #m.messages, kept = #m.kept,
    way = list_copy(m.way) }
end

local function stand(m, status, step)
  m.status, m.step, m.stood = status, step.id, m.now
  if status ~= "paused" then keep_place(m) end
end

local function ladder_of(m, step)
  local silence = m.system.flows[top(m).flow].silence
  return step.no_input or silence and { { after = silence, close = true } } or {}
end

local function after(m, seconds) return seconds and m.now + seconds * 1000 end

local function question(m, step)
  if top(m).wait.failed then return AGAIN end
  local partial, asked = top(m).wait.partial, render(m, step.prompt)
  local kind = generate.kinds[step.kind]
  if not kind.fields then return asked end
  for _, name in ipairs(kind.fields) do
    if not partial or partial[name] == nil then
      return partial and kind.questions[name] or asked .. "\n" .. kind.questions[name]
    end
  end
end

-- Shows the question, with what comes before it.
local function show(m, step, before)
  top(m).wait.before = before
  say(m, "prompt", (before or "") .. question(m, step))
  stand(m, "waiting_input", step)
end

-- Asks; silence is counted from now on.
local function ask(m, step, before)
  local wait, rungs = top(m).wait, ladder_of(m, step)
  wait.rung = 1
  wait.deadline = after(m, rungs[1] and rungs[1].after)
  local last = rungs[#rungs]
  wait.expires_at = last and not last.say and after(m, last.after) or nil
  show(m, step, before)
end

---- running ----

local run = {}

local function step_of(m, id)
  return m.system.flows[top(m).flow].by[id]
end

-- Where an outcome leads to; a step at which the flow ends leads nowhere else.
local function target(m, step, outcome)
  if m.system.flows[top(m).flow].end_step == step.id then return "end" end
  if not step.branches then return step.onward end
  return step.branches[outcome] or step.otherwise
end

local function complete(m, step, output, outcome, said)
  ran(m, step.id, "completed", step)
  local frame = top(m)
  frame.wait = nil
  if step.save and output ~= nil then frame.state[step.save] = copy(output) end
  local onward = target(m, step, outcome)
  pass(m, step, output, onward, said)
  return onward
end

local function leave_flow(m)
  local left = table.remove(m.frames)
  local below = top(m)
  local step = step_of(m, below.step)
  if left.why == "goto" then return step.onward end
  if left.why == "digression" then return step.id end
  return complete(m, step, left.state[step.result])
end

local function go(m, id)
  while id do
    local flow_id = id:match "^flow:(.+)"
    if flow_id then
      local flow, given = m.system.flows[flow_id], {}
      for name in pairs(flow.variables) do given[name] = top(m).state[name] end
      m.frames[#m.frames + 1] = new_frame(flow, given)
      top(m).why, id = "goto", flow.steps[1].id
    elseif id ~= "end" then
      local step = step_of(m, id)
      top(m).step, top(m).before = id, copy(top(m).state)
      id = run[step.type](m, step)
    elseif #m.frames > 1 then
      id = leave_flow(m)
    else
      m.status, m.step = "completed", nil
      return
    end
  end
end

function run.user_input(m, step)
  local frame = top(m)
  frame.wait = frame.wait or { attempt = 1 }
  ask(m, step)
end

function run.agent_response(m, step)
  local state = top(m).state
  if step.own then
    state.n = state.n + 3
    say(m, "agent", ("Own %s, %s."):format(step.id, state.t))
  else
    say(m, "agent", render(m, step.response))
  end
  return complete(m, step)
end

-- Whether somebody above cares for a failure: who was interrupted, or the step of a sub-flow.
local function is_caught(m)
  for i = #m.frames, 2, -1 do
    local below = m.frames[i - 1]
    if m.frames[i].why == "digression" then return true end
    if m.frames[i].why == "subflow" and m.system.flows[below.flow].by[below.step].on_error then
      return true
    end
  end
end

-- What was done is taken back before it ends, the newest first.
local function fail_conversation(m)
  m.status, m.step = "failed", nil
  if not m.system.flows.main.compensates then return end
  for i = #m.kept, 1, -1 do undo(m, i) end
  m.compensated = true
end

-- Waits at the failed step: for the user, or for an operator.
local function recover(m, step)
  if m.system.recovers then
    local silence = m.system.flows[top(m).flow].silence
    top(m).wait = { failed = true, deadline = after(m, silence), expires_at = after(m, silence) }
    say(m, "prompt", AGAIN)
    stand(m, "waiting_input", step)
  elseif m.system.flows.main.resumes then
    m.paused = { status = "failed", since = m.now }
    stand(m, "paused", step)
  else
    return false
  end
  return true
end

local function fail(m, step)
  ran(m, step.id, "failed")
  top(m).wait = nil
  if step.on_error then
    stray(m)
    return step.on_error
  end
  if not is_caught(m) and recover(m, step) then
    stray(m, step.id)
    return nil
  end
  while #m.frames > 1 do
    local left = table.remove(m.frames)
    local below = step_of(m, top(m).step)
    if left.why == "digression" then return below.id end
    if left.why == "subflow" then return fail(m, below) end
  end
  fail_conversation(m)
end

function run.action(m, step)
  local state = top(m).state
  if step.does == "fail" or step.does == "picky" and state.t == "Ada" then
    return fail(m, step)
  end
  if step.calls then call(m, step.id, "run") end
  if step.does == "picky" then
    state.n = state.n + 7
  elseif step.does == "measure" then
    state.n = state.n + #state.t
  elseif step.does == "flaky" then
    ran(m, step.id, "failed")
    ran(m, step.id, "failed")
    state.n = state.n + 5
  elseif step.does == "count" then
    state.n = state.n + 1
  elseif step.does == "once" then
    state.n = state.n + 2
  elseif step.does == "name" then
    return complete(m, step, "name" .. state.n)
  elseif step.does == "loop" then
    state[step.counter] = state[step.counter] + 1
    return complete(m, step, nil, state[step.counter] % 3 == 0 and "on" or "again")
  end
  return complete(m, step)
end

function run.decision(m, step)
  local by = top(m).state[step.by]
  return complete(m, step, nil, (step.by == "t" and #by or by) % 2 == 0 and "even" or "odd")
end

function run.wait(m, step)
  top(m).wait = { deadline = after(m, step.time), from = not step.event and m.now or nil }
  stand(m, step.event and "waiting_event" or "sleeping", step)
end

function run.approval(m, step)
  top(m).wait = { deadline = after(m, step.time) }
  say(m, "prompt", render(m, step.prompt))
  stand(m, "waiting_approval", step)
end

function run.subflow(m, step)
  local state, flow = top(m).state, m.system.flows[step.flow]
  m.frames[#m.frames + 1] = new_frame(flow, { t = state.t, n = state.n })
  top(m).why = "subflow"
  return flow.steps[1].id
end

function run.parallel(m, step)
  local n, output, values, names = top(m).state.n, {}, {}, copy(step.names)
  for i, name in ipairs(step.names) do values[name] = n + i end
  table.sort(names)
  if step.any then names = { names[1] } end -- one after the other, by name
  for _, name in ipairs(names) do output[name] = values[name] end
  local onward = complete(m, step, output)
  for _, name in ipairs(names) do
    say(m, "agent", render(m, ("Branch %s, {t}."):format(name)))
    ran(m, ("%s_%s_1"):format(step.id, name), "completed")
    ran(m, ("%s_%s_2"):format(step.id, name), "completed")
    if step.calls then call(m, ("%s_%s_2"):format(step.id, name), "run") end
  end
  return onward
end

---- answers ----

local function find(answers, raw)
  for _, answer in ipairs(answers) do
    if answer[1] == raw then return answer[2] end
  end
end

local function shown(raw)
  return raw:match '^"(.*)"$' or raw
end

-- Of several that came at once only a text is made.
local function find_text(kind, raw, is_text)
  if raw:find "\n" then return is_text and shown(raw) or nil end
  local value = find(kind.right, raw)
  if value == nil then value = find(kind.also or {}, raw) end
  return value
end

local function accept_object(raw)
  local given = {}
  for name, text in raw:gmatch '"(%w+)":("?[^",}]*"?)' do
    if name ~= "who" and name ~= "age" then return nil end
    given[name] = text
  end
  local who = given.who and given.who:match '^"(..+)"$'
  local age = given.age and math.tointeger(tonumber((given.age:gsub('"', ""))))
  return who and age and age <= 99 and { who = who, age = age } or nil
end

-- One field after the other: the value when that was the last one.
local function accept_field(m, kind, raw)
  local wait = top(m).wait
  local partial = wait.partial or {}
  for i, name in ipairs(kind.fields) do
    if partial[name] == nil then
      local value = find_text(kind.by_field[name], raw, name == "who")
      if value == nil then return nil end
      local all = copy(partial)
      all[name] = value
      if i == #kind.fields then return all end
      wait.partial, wait.attempt, wait.shown = all, 1, nil
      return nil, true
    end
  end
end

local function accept_whole(step, raw)
  local kind = generate.kinds[step.kind]
  if raw == '""' and not kind.fields and not step.required then return kind.blank end
  if kind.fields then return accept_object(raw) end
  return find_text(kind, raw, step.kind == "text")
end

-- The value; or nil, and whether more is to be asked.
local function accept(m, step, raw)
  local kind = generate.kinds[step.kind]
  if kind.fields and raw:sub(1, 1) ~= "{" then return accept_field(m, kind, raw) end
  return accept_whole(step, raw)
end

local function leave(m, step)
  ran(m, step.id, "failed")
  stray(m)
  top(m).wait = nil
end

local function refuse(m, step)
  local wait, rungs = top(m).wait, step.no_match
  local rung = rungs and rungs[math.min(wait.attempt, #rungs)]
  if type(rung) == "table" then
    leave(m, step)
    return go(m, rung.go)
  end
  wait.attempt = wait.attempt + 1
  ask(m, step, rung and render(m, rung) .. "\n" or ANY)
end

-- The flow that interrupts, unless it runs already. Its phrase holds in the flows above, too.
local function interrupt(m, raw)
  local main = m.system.flows.main
  if not main.phrase or shown(raw) ~= main.phrase then return nil end
  for _, frame in ipairs(m.frames) do
    if frame.flow == main.interrupt then return nil end
  end
  return m.system.flows[main.interrupt]
end

---- others who speak ----

local function decide(m, approved, role, timed_out)
  local step = step_of(m, m.step)
  local output = { approved = approved, at = m.now, role = role, timed_out = timed_out }
  return go(m, complete(m, step, output, approved and "approved" or "rejected"))
end

function Model:approve(role, approved)
  if self.status ~= "waiting_approval" then return not_waiting(self) end
  if step_of(self, self.step).role ~= role then return "approval.role" end
  return decide(self, approved, role)
end

function Model:event(name)
  if self.status ~= "waiting_event" and self.status ~= "sleeping" then
    return not_waiting(self)
  end
  local step = step_of(self, self.step)
  if step.event ~= name then return "event.unexpected" end
  local onward = complete(self, step, { sum = 7 }, "event")
  self.kept[#self.kept] = { came = true }
  return go(self, onward)
end

function Model:pause()
  if is_over(self) or self.status == "paused" then return not_waiting(self) end
  self.paused = { status = self.status, since = self.now }
  self.status, self.stood = "paused", self.now
end

-- Waits again as if it were asked for the first time; what was answered wrongly stays so, and sleep
-- goes on.
local function wait_anew(m)
  local step, wait = step_of(m, m.step), top(m).wait
  wait.shown = nil
  if m.status == "waiting_input" and not wait.failed then return ask(m, step, wait.before) end
  if not wait.failed and not wait.from then wait.deadline = after(m, step.time) end
  if m.status == "waiting_approval" then say(m, "prompt", render(m, step.prompt)) end
  stand(m, m.status, step)
end

-- It waits that much longer.
local function shift(m, by)
  for _, frame in ipairs(m.frames) do
    local wait = frame.wait or {}
    wait.deadline = wait.deadline and wait.deadline + by
    wait.expires_at = wait.expires_at and wait.expires_at + by
    wait.from = wait.from and wait.from + by
  end
end

-- Nobody goes back to what an older version asked.
function Model:migrate(version)
  if is_over(self) then return "conversation.finished" end
  if self.version == version then return nil end
  self.version, self.migrated, self.places, self.way = version, true, {}, {}
  if self.paused then
    self.paused.anew = true
  else
    wait_anew(self)
  end
end

function Model:resume()
  if self.status ~= "paused" then
    return is_over(self) and "conversation.finished" or "conversation.not_paused"
  end
  local held, was, anew = self.now - self.paused.since, self.paused.status, self.paused.anew
  self.ends = self.ends and self.ends + held
  shift(self, held)
  self.status, self.paused, self.stood = was, nil, self.now
  if was == "failed" then return go(self, self.step) end
  if anew then return wait_anew(self) end
  keep_place(self)
end

function Model:cancel()
  if not is_over(self) then self.status, self.step = "cancelled", nil end
end

---- commands ----

local function answer_command(m, text)
  if m.status ~= "waiting_input" then return "command.refused" end
  show(m, step_of(m, m.step), text)
end

local commands = {}

function commands.restart(m)
  m.frames = { new_frame(m.system.flows.main, {}) }
  stray(m)
  return go(m, m.system.flows.main.steps[1].id)
end

function commands.cancel(m)
  if not m.system.flows.main.cancels then return answer_command(m, ANY) end
  m.status, m.step = "cancelled", nil
end

function commands.skip(m)
  local step = step_of(m, m.step)
  local blank = m.status == "waiting_input" and not top(m).wait.failed and not step.required
    and generate.kinds[step.kind].blank
  if not blank or not m.system.flows[top(m).flow].skips then return answer_command(m, ANY) end
  return go(m, complete(m, step, blank, step.condition and "blank"))
end

function commands.help(m)
  return answer_command(m, ANY)
end

function commands.back(m)
  local refused = m:rollback(1, false, true)
  local is_told = refused and refused ~= "rollback.undo_failed" and m.status == "waiting_input"
  if not is_told then return refused end
  return answer_command(m, ANY)
end

function Model:command(name, ...)
  if is_over(self) or self.status == "paused" then return not_waiting(self) end
  return commands[name](self, ...)
end

-- Where something cannot be undone it stays, but what was undone by then is not undone again.
local function undo_back_to(m, place, by_force)
  for at = #m.kept, place.kept + 1, -1 do
    if not undo(m, at) and not by_force then
      m.stood = m.now
      return "rollback.undo_failed"
    end
  end
end

-- The place before the last `count` answers. The one at which it waits now has not been answered.
local function place_before(m, count)
  local status = m.paused and m.paused.status or m.status
  local behind = SOMEBODY[status] and count or count - 1
  return m.places[#m.places - behind], behind
end

-- Whether nobody can tell what lies between.
---@param count integer
---@return boolean
function Model:is_unsure(count)
  local place = place_before(self, count)
  for i = place and place.kept + 1 or math.huge, #self.kept do
    if self.kept[i].unsure then return true end
  end
  return false
end

local function is_decided(m, place)
  for i = place.kept + 1, #m.kept do
    if m.kept[i].type == "approval" or m.kept[i].came then return true end
  end
end

-- To the place where the conversation stood before the last `count` answers. The one at which it
-- waits now has not been answered; how far it has `gone` back counts until it is.
function Model:rollback(count, by_force, by_user)
  local main = self.system.flows.main
  if self.compensated and not by_force then return "rollback.compensated" end
  if not main.rollback then return "rollback.disabled" end
  local place, behind = place_before(self, count)
  if not place then return self.migrated and "rollback.migrated" or "rollback.nothing" end
  if by_user and is_decided(self, place) then return "rollback.decided" end
  local gone = count + (behind == count and self.gone or 0)
  if gone > main.rollback then return "rollback.limit" end
  for i = place.kept + 1, #self.kept do
    local one = self.kept[i]
    local stays = one.irreversible or one.undoes and one.undoes <= place.kept
    if stays and not by_force then return "rollback.irreversible" end
  end
  local failed = undo_back_to(self, place, by_force)
  if failed then return failed end
  while #self.kept > place.kept do table.remove(self.kept) end
  for _ = 1, behind do table.remove(self.places) end
  self.compensated, self.gone = nil, gone
  self.way = list_copy(place.way)
  local held = self.paused and self.now - self.paused.since or 0
  self.ends = self.ends and self.ends + held
  self.status, self.step, self.paused, self.stood = place.status, place.step, nil, self.now
  self.frames = copy(place.frames)
  while #self.messages > place.messages do table.remove(self.messages) end
  shift(self, self.now - place.now)
  place.now, place.frames = self.now, copy(self.frames)
end

---- another answer ----

local function looks_at(step)
  if step.type == "agent_response" or step.does == "measure" or step.does == "picky" then
    return { "n", "t" }
  elseif step.type == "decision" then
    return { step.by }
  end
  return { step.type == "action" and (step.counter or "n") or nil }
end

local function writes(step)
  if step.type == "agent_response" then return { step.own and "n" or nil } end
  if step.type ~= "action" then return { step.save } end
  return { step.counter or step.save or "n" }
end

-- Its prompt names {t}, and yes or the second one mean nothing without it.
local function confirms(step)
  return step.kind == "boolean" or step.kind == "choice"
end

local function has_effects(step)
  return step.undo or step.irreversible or step.calls or step.does == "once"
end

-- In the turn of an answer an agent of its own is given the words, too.
local function listens(m, at, i, said)
  if not m.way[i].step.own or said == m.way[at].said then return false end
  for j = at + 1, i do
    if m.way[j].step.type == "user_input" then return false end
  end
  return true
end

-- Whether one of the names is another one than the passage had before it.
local function differ(names, passage, state, unknown)
  for _, name in ipairs(names) do
    if unknown and unknown[name] or state[name] ~= passage.before[name] then return true end
  end
end

local function put_writes(passage, state)
  for _, name in ipairs(writes(passage.step)) do state[name] = copy(passage.after[name]) end
end

-- The step on a copy of the conversation: where it leads to, and the state; nil: it fails.
local function try(m, step, state)
  local other = { system = m.system, frames = { { flow = "main", state = state } }, kept = {},
    way = {}, ran = {}, messages = {}, calls = {} }
  if step.does == "picky" and state.t == "Ada" then return nil end
  return run[step.type](other, step)
end

local function may_lead_elsewhere(m, step)
  return step.branches or step.on_error or m.system.recovers or m.system.flows.main.resumes
end

-- What depends on the answer by what is known before anything runs again: the passages by number.
-- What a step with effects will write nobody knows, nor, where it has branches or others go on when
-- it fails, whether the way goes on. Or nil and the refusal.
local function foresee(m, at, state, said)
  local depends, unknown, open = {}, {}, false
  local function add(from, to)
    for i = from, to do depends[#depends + 1] = i end
  end
  for i = at + 1, #m.way do
    local passage = m.way[i]
    local step = passage.step
    if confirms(step) and differ({ "t" }, passage, state, unknown) then
      add(i, #m.way)
      return depends
    elseif not differ(looks_at(step), passage, state, unknown) and not listens(m, at, i, said) then
      put_writes(passage, state)
      for _, name in ipairs(writes(step)) do unknown[name] = nil end
      if open and has_effects(step) then add(i, i) end
    elseif has_effects(step) or open or differ(looks_at(step), passage, passage.before, unknown)
    then
      add(i, i)
      for _, name in ipairs(writes(step)) do unknown[name] = true end
      open = open or may_lead_elsewhere(m, step)
    else
      local onward = try(m, step, state)
      if not onward and not step.on_error then return nil, "command.refused" end
      add(i, i)
      if onward ~= passage.onward then
        add(i + 1, #m.way)
        return depends
      end
      for _, name in ipairs(writes(step)) do unknown[name] = nil end
    end
  end
  return depends
end

local function is_named(step, name)
  if step.type ~= "user_input" then return false end
  local by_field = generate.kinds[step.kind].by_field or {}
  return step.id == name or step.save == name or by_field[name] ~= nil
end

local OPEN = { user_input = true, agent_response = true, action = true, decision = true }

-- The newest answer of that name: its number on the way; nil where the way from there is not known.
local function find_answer(m, name)
  local following = m.step
  for i = #m.way, 1, -1 do
    local passage = m.way[i]
    local step = passage.step
    if not step or not OPEN[step.type] or passage.onward ~= following then return nil end
    if is_named(step, name) then return i end
    following = step.id
  end
end

-- The value, and what was said for it.
local function another_answer(passage, name, raw, words)
  local step = passage.step
  local kind = generate.kinds[step.kind]
  if kind.fields and name ~= step.id and name ~= step.save then
    local all = copy(passage.output)
    all[name] = find(kind.by_field[name].right, raw)
    if all[name] == nil then return nil end
    return all, ('{"age":%s,"who":%s}'):format(name == "age" and words or all.age,
      name == "who" and words or ("%q"):format(all.who))
  end
  return accept_whole(step, raw), words
end

-- Once more: it is another prompt, and one can go back to what was before.
local function ask_again(m, wait, hint)
  local step = step_of(m, m.step)
  top(m).wait, top(m).step, top(m).before, wait.shown = wait, step.id, copy(top(m).state), nil
  if step.type == "user_input" then return ask(m, step, hint) end
  if hint then say(m, "prompt", hint) end
  if step.type == "approval" then
    wait.deadline = after(m, step.time)
    say(m, "prompt", render(m, step.prompt))
  end
  stand(m, m.status, step)
end

-- Where it leads to; nothing: the turn has ended.
local function run_again(m, passage, depends)
  local step, state = passage.step, top(m).state
  if depends or differ(looks_at(step), passage, state) then return run[step.type](m, step) end
  put_writes(passage, state)
  local kept = copy { output = passage.output, before = top(m).before, after = state }
  kept.step, kept.onward, kept.at, kept.said = step, passage.onward, passage.at, passage.said
  m.way[#m.way + 1] = kept
  return passage.onward
end

local function take(m, at, value, undone, said, hint)
  local heard = {}
  for i = at + 1, #m.way do heard[i] = listens(m, at, i, said) end
  local way, wait, frame = m.way, top(m).wait, top(m)
  m.way, frame.state, frame.wait = list_copy(way), copy(way[at].before), nil
  for i = #way, at, -1 do m.way[i] = nil end
  for i = at, #way do
    local passage = way[i]
    local step, onward = passage.step
    frame.step, frame.before = step.id, copy(frame.state)
    if i == at then
      onward = complete(m, step, value, step.condition and tostring(value), said)
    elseif confirms(step) and differ({ "t" }, passage, frame.state) then
      ran(m, step.id, "failed")
      onward = step.id
    else
      onward = run_again(m, passage, undone[i] or heard[i])
    end
    if not onward then return end
    local is_on = m.way[i] and m.way[i].step and onward == passage.onward
    if not is_on then return go(m, onward) end
  end
  return ask_again(m, wait, hint)
end

-- Something could not be undone: what was undone by then is done again.
local function keep_answer(m, at, undone)
  local passage = m.way[at]
  return take(m, at, passage.output, undone, passage.said, ANY)
end

-- Of the way behind that, what was undone by a rollback that failed: it runs again, too.
local function undone_before(m, at)
  local undone = {}
  for i = at + 1, #m.way do
    undone[i] = m.way[i].step.undo and not m.kept[m.way[i].at].undo
  end
  return undone
end

-- Another answer to a field of the form that is begun.
local function change_field(m, name, raw)
  local wait, step = top(m).wait, step_of(m, m.step)
  local value = find(generate.kinds[step.kind].by_field[name].right, raw)
  if value == nil then return answer_command(m, ANY) end
  wait.partial[name], wait.attempt, wait.shown = value, 1, nil
  return ask(m, step)
end

-- `words`: what was said, where that is not all of it.
function commands.correct(m, name, raw, words)
  local partial = top(m).wait.partial
  if m.status == "waiting_input" and partial and partial[name] ~= nil then
    return change_field(m, name, raw)
  end
  if #m.frames > 1 or top(m).wait.failed then return "command.refused" end
  local at = find_answer(m, name)
  if not at then return "command.refused" end
  local passage = m.way[at]
  local value, said = another_answer(passage, name, raw, words or raw)
  if value == nil then return answer_command(m, ANY) end
  local state = copy(passage.before)
  if passage.step.save then state[passage.step.save] = copy(value) end
  local onward = target(m, passage.step, passage.step.condition and tostring(value))
  local depends, refused = {}, nil
  if onward == passage.onward then
    depends, refused = foresee(m, at, state, said)
  else
    for i = at + 1, #m.way do depends[#depends + 1] = i end
  end
  if refused then return refused end
  local undone = undone_before(m, at)
  for _, i in ipairs(depends) do
    if m.way[i].step.irreversible then return "rollback.irreversible" end
  end
  for j = #depends, 1, -1 do
    local one = m.way[depends[j]]
    if m.kept[one.at].undo then
      if not undo(m, one.at) then return keep_answer(m, at, undone) end
      m.kept[#m.kept + 1], undone[depends[j]] = { undoes = one.at }, true
    end
  end
  return take(m, at, value, undone, said)
end

---- what the user says ----

local function command_of(m, raw)
  for name, phrase in pairs(m.system.flows.main.phrases or {}) do
    if shown(raw) == phrase then return name end
  end
end

local function is_called(flow, name)
  for _, step in ipairs(flow.steps) do
    if is_named(step, name) then return true end
  end
end

-- Another answer: to which question, what, and without the spaces around it; nothing: there is
-- none that is called so.
local function reworded(m, raw)
  local name, text = shown(raw):match "^change (%w+) to (.+)$"
  local main = m.system.flows.main
  if not name or not main.phrases then return nil end
  if is_called(m.system.flows[top(m).flow], name) or is_called(main, name) then
    return name, ('"%s"'):format(text), ('"%s"'):format(text:match "^%s*(.-)%s*$")
  end
end

-- Whatever refuses it is said where it is asked, but for what happens on the way.
local function reword(m, ...)
  local refused = commands.correct(m, ...)
  return refused and answer_command(m, ANY)
end

-- What is refused was never said.
local function spoken(m, raw, name, ...)
  say(m, "user", shown(raw))
  local said = #m.messages
  local refused = m:command(name, ...)
  if refused then m.messages[said] = nil end
  return refused
end

function Model:message(raw)
  local asked = self.status == "waiting_input"
  if is_over(self) or self.status == "paused" then return not_waiting(self) end
  local command, name, text, words = command_of(self, raw), reworded(self, raw)
  if command then return spoken(self, raw, command) end
  if name and not asked then return spoken(self, raw, "correct", name, text, words) end
  if not asked then return not_waiting(self) end
  local step = step_of(self, self.step)
  say(self, "user", shown(raw))
  if name then return reword(self, name, text, words) end
  if top(self).wait.failed then
    top(self).wait = nil
    return go(self, step.id)
  end
  local other = interrupt(self, raw)
  if other then
    top(self).wait.before = nil
    table.insert(self.frames, new_frame(other, {}))
    top(self).why = "digression"
    return go(self, other.steps[1].id)
  end
  local value, more = accept(self, step, raw)
  if more then return ask(self, step) end
  if value == nil then return refuse(self, step) end
  local outcome = step.condition and tostring(value)
  return go(self, complete(self, step, value, outcome, raw))
end

---- time ----

---@return integer? at when something happens by itself
function Model:deadline()
  if is_over(self) or self.status == "paused" then return nil end
  local at = top(self).wait.deadline
  return at and self.ends and math.min(at, self.ends) or at or self.ends
end

-- However it stands, it has lasted too long.
local function expire(m)
  if not top(m).wait.failed then ran(m, m.step, "failed") end
  m.status, m.step = "expired", nil
end

local function silent(m, step)
  local wait, rungs = top(m).wait, ladder_of(m, step)
  if wait.failed then
    m.status, m.step = "expired", nil
    return
  end
  local rung, following = rungs[wait.rung], rungs[wait.rung + 1]
  if rung.say then
    local late = m.now - wait.deadline
    say(m, "prompt", render(m, rung.say))
    m.stood = m.now
    wait.expires_at = wait.expires_at and wait.expires_at + late
    wait.rung, wait.deadline = wait.rung + 1, after(m, following and following.after - rung.after)
    return
  end
  leave(m, step)
  if rung.go then return go(m, rung.go) end
  m.status, m.step = "expired", nil
end

-- The deadline has passed, perhaps long ago.
function Model:wake()
  if self.ends and self.now >= self.ends then return expire(self) end
  local step = step_of(self, self.step)
  if self.status == "waiting_input" then return silent(self, step) end
  if self.status == "waiting_approval" then
    return decide(self, step.default == "approved", nil, true)
  end
  return go(self, complete(self, step, nil, "timeout"))
end

---- what one sees ----

function Model:prompt()
  if self.status ~= "waiting_input" then return nil end
  local wait = top(self).wait
  if wait.failed then return { text = AGAIN, attempt = 1, expires_at = wait.expires_at } end
  return { text = question(self, step_of(self, self.step)), attempt = wait.attempt,
    expires_at = wait.expires_at }
end

---@return table[] steps on the way that it has come
function Model:answered()
  local steps = {}
  for i, passage in ipairs(self.way) do steps[i] = passage.step or {} end
  return steps
end

function Model:state()
  return self.frames[1].state
end

---@param system table
---@param now integer
function Model.start(system, now)
  local m = setmetatable({ system = system, now = now, messages = {}, ran = {}, kept = {},
    places = {}, way = {}, calls = {}, ends = system.life and now + system.life * 1000,
    frames = { new_frame(system.flows.main, {}) } }, Model)
  go(m, system.flows.main.steps[1].id)
  return m
end

---@return table model as it is now
function Model:copy()
  local made = copy { now = self.now, messages = self.messages, frames = self.frames,
    ran = self.ran, calls = self.calls, paused = self.paused, status = self.status,
    step = self.step, ends = self.ends, version = self.version, migrated = self.migrated,
    stood = self.stood, gone = self.gone }
  made.kept, made.way, made.places = list_copy(self.kept), list_copy(self.way), {}
  for i, place in ipairs(self.places) do
    local way = place.way
    place.way = nil
    made.places[i], place.way = copy(place), way
    made.places[i].way = way
  end
  made.system, made.compensated, made.refused = self.system, self.compensated, self.refused
  return setmetatable(made, Model)
end

-- A conversation of its own that goes on from here: it knows what was said and done, but can
-- neither go back before this nor undo that, and has the whole time again.
---@param now integer
---@return table model
function Model:fork(now)
  local made = self:copy()
  made.now, made.kept, made.way, made.calls, made.places = now, {}, {}, {}, {}
  made.gone, made.migrated, made.ends = 0, nil, self.system.life and now + self.system.life * 1000
  shift(made, now - self.stood)
  made.stood = now
  if made.paused then made.paused.since = now end
  if top(made).wait then top(made).wait.shown = nil end
  keep_place(made)
  return made
end

return { start = Model.start, has_effects = has_effects, ANY = ANY }
