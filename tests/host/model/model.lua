-- The reference model: how one conversation of a drawn system (generate.lua) must stand after each
-- input, by what CONTRACT.md says a word means. It keeps whole copies where the host keeps a
-- journal, and knows nothing of how the host does it.
--
-- What comes in is a method. It returns nil, or the code with which the host must refuse it; then
-- nothing has changed.
-- luacheck: globals host
local generate = require "generate"

local Model = {}
Model.__index = Model

local ANY = "*\n" -- a message begins with a reason of the host's own words

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

-- What has run is never taken back, so the list of it is shared by all copies.
local function ran(m, id, status)
  table.insert(m.ran, { id = id, status = status })
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
  if wait.shown or not SOMEBODY[m.status] then return end
  wait.shown = true
  m.places[#m.places + 1] = { now = m.now, status = m.status, step = m.step,
    frames = copy(m.frames), messages = #m.messages }
end

local function stand(m, status, step)
  m.status, m.step = status, step.id
  keep_place(m)
end

local function ladder_of(m, step)
  local silence = m.system.flows[top(m).flow].silence
  return step.no_input or silence and { { after = silence, close = true } } or {}
end

local function after(m, seconds) return seconds and m.now + seconds * 1000 end

local function question(m, step)
  local partial, asked = top(m).wait.partial, render(m, step.prompt)
  local kind = generate.kinds[step.kind]
  if not kind.fields then return asked end
  for _, name in ipairs(kind.fields) do
    if not partial or partial[name] == nil then
      return partial and kind.questions[name] or asked .. "\n" .. kind.questions[name]
    end
  end
end

-- Asks, with what comes before the question; silence is counted from now on.
local function ask(m, step, before)
  local wait, rungs = top(m).wait, ladder_of(m, step)
  wait.rung = 1
  wait.deadline = after(m, rungs[1] and rungs[1].after)
  local last = rungs[#rungs]
  wait.expires_at = last and not last.say and after(m, last.after) or nil
  say(m, "prompt", (before or "") .. question(m, step))
  stand(m, "waiting_input", step)
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

local function complete(m, step, output, outcome)
  ran(m, step.id, "completed")
  local frame = top(m)
  frame.wait = nil
  if step.save and output ~= nil then frame.state[step.save] = copy(output) end
  return target(m, step, outcome)
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
      top(m).step = id
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

function run.action(m, step)
  local state = top(m).state
  if step.does == "fail" then
    ran(m, step.id, "failed")
    return step.on_error
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
  return complete(m, step, nil, top(m).state.n % 2 == 0 and "even" or "odd")
end

function run.wait(m, step)
  top(m).wait = { deadline = after(m, step.time) }
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
  local n, output, names = top(m).state.n, {}, copy(step.names)
  for i, name in ipairs(step.names) do output[name] = n + i end
  local onward = complete(m, step, output)
  table.sort(names)
  for _, name in ipairs(names) do
    say(m, "agent", render(m, ("Branch %s, {t}."):format(name)))
    ran(m, ("%s_%s_1"):format(step.id, name), "completed")
    ran(m, ("%s_%s_2"):format(step.id, name), "completed")
  end
  return onward
end

---- answers ----

local function find(answers, raw)
  for _, answer in ipairs(answers) do
    if answer[1] == raw then return answer[2] end
  end
end

-- One field after the other: the value when that was the last one.
local function accept_field(m, kind, raw)
  local wait = top(m).wait
  local partial = wait.partial or {}
  for i, name in ipairs(kind.fields) do
    if partial[name] == nil then
      local value = find(kind.by_field[name].right, raw)
      if value == nil then return nil end
      local all = copy(partial)
      all[name] = value
      if i == #kind.fields then return all end
      wait.partial, wait.attempt, wait.shown = all, 1, nil
      return nil, true
    end
  end
end

-- The value; or nil, and whether more is to be asked.
local function accept(m, step, raw)
  local kind = generate.kinds[step.kind]
  if raw == '""' and not kind.fields and not step.required then return kind.blank end
  if kind.fields and raw:sub(1, 1) ~= "{" then return accept_field(m, kind, raw) end
  return find(kind.right, raw)
end

local function leave(m, step)
  ran(m, step.id, "failed")
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

local function shown(raw)
  return raw:match '^"(.*)"$' or raw
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

function Model:message(raw)
  if self.status ~= "waiting_input" then return not_waiting(self) end
  local step = step_of(self, self.step)
  say(self, "user", shown(raw))
  local other = interrupt(self, raw)
  if other then
    table.insert(self.frames, new_frame(other, {}))
    top(self).why = "digression"
    return go(self, other.steps[1].id)
  end
  local value, more = accept(self, step, raw)
  if more then return ask(self, step) end
  if value == nil then return refuse(self, step) end
  local outcome = step.condition and tostring(value)
  return go(self, complete(self, step, value, outcome))
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
  return go(self, complete(self, step, { sum = 7 }, "event"))
end

function Model:pause()
  if is_over(self) or self.status == "paused" then return not_waiting(self) end
  self.paused = { status = self.status, since = self.now }
  self.status = "paused"
end

function Model:resume()
  if self.status ~= "paused" then
    return is_over(self) and "conversation.finished" or "conversation.not_paused"
  end
  local held = self.now - self.paused.since
  for _, frame in ipairs(self.frames) do
    local wait = frame.wait or {}
    wait.deadline = wait.deadline and wait.deadline + held
    wait.expires_at = wait.expires_at and wait.expires_at + held
  end
  self.status, self.paused = self.paused.status, nil
end

function Model:cancel()
  if not is_over(self) then self.status, self.step = "cancelled", nil end
end

---- commands ----

local function answer_command(m, text)
  if m.status ~= "waiting_input" then return "command.refused" end
  local step = step_of(m, m.step)
  ask(m, step, text)
end

local commands = {}

function commands.restart(m)
  m.frames = { new_frame(m.system.flows.main, {}) }
  return go(m, m.system.flows.main.steps[1].id)
end

function commands.cancel(m)
  if not m.system.flows.main.cancels then return answer_command(m, ANY) end
  m.status, m.step = "cancelled", nil
end

function commands.skip(m)
  local step = step_of(m, m.step)
  local blank = m.status == "waiting_input" and not step.required
    and generate.kinds[step.kind].blank
  if not blank or not m.system.flows[top(m).flow].skips then return answer_command(m, ANY) end
  return go(m, complete(m, step, blank, step.condition and "blank"))
end

function commands.help(m)
  return answer_command(m, ANY)
end

function commands.back(m)
  return m:rollback(1)
end

function Model:command(name)
  if is_over(self) or self.status == "paused" then return not_waiting(self) end
  return commands[name](self)
end

-- To the place where the conversation stood before the last `count` answers. The one at which it
-- waits now has not been answered.
function Model:rollback(count)
  local main = self.system.flows.main
  if not main.rollback then return "rollback.disabled" end
  local status = self.paused and self.paused.status or self.status
  local behind = SOMEBODY[status] and count or count - 1
  local place = self.places[#self.places - behind]
  if not place then return "rollback.nothing" end
  if count > main.rollback then return "rollback.limit" end
  for _ = 1, behind do table.remove(self.places) end
  self.status, self.step, self.paused = place.status, place.step, nil
  self.frames = copy(place.frames)
  while #self.messages > place.messages do table.remove(self.messages) end
  for _, frame in ipairs(self.frames) do
    local wait = frame.wait or {}
    wait.deadline = wait.deadline and wait.deadline + self.now - place.now
    wait.expires_at = wait.expires_at and wait.expires_at + self.now - place.now
  end
  place.now, place.frames = self.now, copy(self.frames)
end

---- time ----

---@return integer? at when something happens by itself
function Model:deadline()
  if is_over(self) or self.status == "paused" then return nil end
  return top(self).wait.deadline
end

local function silent(m, step)
  local wait, rungs = top(m).wait, ladder_of(m, step)
  local rung, following = rungs[wait.rung], rungs[wait.rung + 1]
  if rung.say then
    local late = m.now - wait.deadline
    say(m, "prompt", render(m, rung.say))
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
  return { text = question(self, step_of(self, self.step)), attempt = wait.attempt,
    expires_at = wait.expires_at }
end

function Model:state()
  return self.frames[1].state
end

---@param system table
---@param now integer
function Model.start(system, now)
  local m = setmetatable({ system = system, now = now, messages = {}, ran = {}, places = {},
    frames = { new_frame(system.flows.main, {}) } }, Model)
  go(m, system.flows.main.steps[1].id)
  return m
end

---@return table model as it is now
function Model:copy()
  local made = copy { now = self.now, messages = self.messages, places = self.places,
    frames = self.frames, ran = self.ran, paused = self.paused, status = self.status,
    step = self.step }
  made.system = self.system
  return setmetatable(made, Model)
end

return { start = Model.start, ANY = ANY }
