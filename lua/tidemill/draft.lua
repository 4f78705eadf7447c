--- What a turn writes: drafts for the journal, and the records of steps and messages that wait for
--- the next row.
local clock = require "host.clock"
local fault = require "tidemill.fault"
local frames = require "tidemill.frames"
local json = require "host.json"
local usage = require "tidemill.usage"

local M = {}

---@param run tidemill.Run
---@param role "user"|"agent"|"prompt"
---@param said string
---@param more { step_id: string?, agent: string?, provider: string? }
---@return integer seq
function M.message(run, role, said, more)
  local seq = run.runtime.message_seq + 1
  run.runtime.message_seq = seq
  run.messages[#run.messages + 1] = { seq = seq, role = role, text = said, step_id = more.step_id,
    agent = more.agent, provider = more.provider }
  return seq
end

--- What it called before the turn was interrupted it has called again if it was completed.
local function has_called(run, status)
  return run.called or run.unanswered and status ~= "completed" or nil
end

local function irreversible_of(run, step)
  if step.irreversible == nil and frames.may_stay(run) then return false end
  return step.irreversible
end

--- The flow that a step belongs to, where that is not the conversation's; a branch that is made of
--- steps belongs to the flow of its parallel step.
local function flow_of(run)
  if run.runtime.frames then return run.flow.flow_id end
  return run.parent and flow_of(run.parent)
end

--- From here on there is something that the `undo` of a step takes back whose flow this is in.
local function note_effects(run, record)
  local effects = record.called or record.undo and record.status == "completed"
  if not effects or record.undoes or record.irreversible == false then return end
  local below = run.runtime.frames or {}
  for i = #below, 1, -1 do
    local frame = below[i]
    if frame.why == "digression" then return end
    frame.first = frame.first or record.seq
  end
end

--- What a rollback does with it is recorded as well: `undo` is the flow whose step takes it back.
local function add_record(run, step, status, result)
  local undo, irreversible
  local called = has_called(run, status)
  local used = usage.take(run)
  if not run.parent then usage.add(run.runtime, used) end
  if not result.undoes then
    undo, irreversible = step.undo and run.flow.flow_id, irreversible_of(run, step)
  end
  run.steps[#run.steps + 1] = {
    seq = run.seq, step_id = step.step_id, type = step.step_type, agent = step.agent,
    step_category = step.metadata.step_category, solution_type = step.metadata.solution_type,
    attempt = run.attempt, input = result.input, output = result.output, reply = result.reply,
    start = run.started, ["end"] = clock.now(), status = status, error = result.error,
    undoes = result.undoes, undo = undo, irreversible = irreversible, review = run.review,
    flow = flow_of(run), corrects = run.corrects,
    called = called, first = result.first, usage = used,
    aside = called and frames.is_aside(run) or nil,
  }
  note_effects(run, run.steps[#run.steps])
end

--- What a branch has said that does not count is only the output of its steps.
local function keep_unsaid(own)
  local said = {}
  for _, message in ipairs(own.messages) do said[message.seq] = message.text end
  for _, record in ipairs(own.steps) do
    if record.reply then record.output, record.reply = said[record.reply], nil end
  end
  own.messages = json.array {}
end

--- What a branch has left gets numbers behind those of its step.
local function adopt(run, branch)
  local own, runtime = branch.run, run.runtime
  local first, before = runtime.message_seq, runtime.step_seq
  for _, message in ipairs(own.messages) do
    message.seq = first + message.seq
    run.messages[#run.messages + 1] = message
  end
  runtime.message_seq = first + #own.messages
  for _, record in ipairs(own.steps) do
    runtime.step_seq = runtime.step_seq + 1
    record.seq, record.branch = runtime.step_seq, branch.name
    record.first = record.first and before + record.first
    if record.reply then record.reply = first + record.reply end
    usage.add(runtime, record.usage)
    run.steps[#run.steps + 1] = record
    note_effects(run, record)
  end
  for _, event in ipairs(own.events) do run.events[#run.events + 1] = event end
  run.bytes = run.bytes + own.bytes
end

--- A branch that ran when it was over with them leaves its step as cancelled. Of a step that has
--- failed nothing was said.
local function adopt_branches(run, failed)
  local branches = run.fork.branches
  run.fork = nil
  for _, branch in ipairs(branches) do
    local own = branch.run
    if branch.status == "running" and own.current then
      add_record(own, own.current, "cancelled", {})
    end
    if failed or not branch.counts then keep_unsaid(own) end
    adopt(run, branch)
  end
end

---Records one execution of a step or of its `undo`, and behind it those of its branches.
---@param run tidemill.Run
---@param step tidemill.Step
---@param result { input: any, output: any, reply: integer?, error: table?, undoes: integer?,
---  first: integer? }
function M.step(run, step, result)
  local runtime = run.runtime
  runtime.step_seq = run.seq
  if not result.error then
    runtime.completed = run.seq
    for _, event in ipairs(run.emitted or {}) do run.events[#run.events + 1] = event end
  end
  run.emitted = nil
  add_record(run, step, result.error and "failed" or "completed", result)
  if run.fork then adopt_branches(run, result.error ~= nil) end
end

--- What the steps of one row may bring: well below the 8 MiB that a part of a row may have.
local ROW_BYTES = 6 << 20

---Bytes that a text takes in a row, at most.
---@param said string
---@return integer
function M.text_bytes(said)
  if #said < 1024 then return #said * 6 end -- every byte as \u00xx
  local encoded = json.encode(said)
  return encoded and #encoded or math.maxinteger // 2
end

local function bytes_of(run)
  local bytes = run.bytes
  for _, branch in ipairs(run.fork and run.fork.branches or {}) do
    bytes = bytes + branch.run.bytes
  end
  return bytes
end

---Counts what a step brings; raises when the row could not hold it.
---@param run tidemill.Run
---@param bytes integer
function M.reserve(run, bytes)
  run.bytes = run.bytes + bytes
  if bytes_of(run.parent or run) <= ROW_BYTES then return end
  fault.stop("turn.too_large", ("the steps since the last wait or call brought more than %d bytes; "
    .. "let them return less, or let one of them ask"):format(ROW_BYTES))
end

---Forgets what a row has taken over.
---@param run tidemill.Run
function M.written(run)
  run.bytes = 0
  run.steps, run.messages, run.events = json.array {}, json.array {}, json.array {}
end

--- The row's state is that of the flow with which the conversation began; that of a flow on top of
--- it (see frames.lua) is in the runtime part.
local function make(run, status, step_id, wake_at, state)
  local runtime, root, flow = run.runtime, run.root, run.flow
  if runtime.frames then state, runtime.state = run.root_state, state end
  return {
    status = status, step = step_id, wake_at = wake_at, checkpoint = false,
    in_memory = run.is_start and root.in_memory, compress = root.compress or flow.compress,
    seal = root.seal or flow.seal, steps = run.steps, messages = run.messages, state = state,
    runtime = runtime, events = run.events,
  }
end

local function present_state(run)
  return run.state_text and json.raw(run.state_text) or run.state
end

---Since when the step runs or waits, and how long it should take: a reader sees how far it is.
---@param run tidemill.Run
---@param step tidemill.Step
---@param started integer?
function M.expect(run, step, started)
  run.runtime.progress = step.expected_ms and started
    and { started = started, expected_ms = step.expected_ms } or nil
end

---The begin row: everything as it was before the step that runs now, which is about to call the
---outside. Should nothing be recorded of it any more, that is known from here.
---@param run tidemill.Run
---@return table
function M.begin(run)
  local runtime = run.runtime
  runtime.started, runtime.turn = run.started, run.is_start and "start" or "message"
  M.expect(run, run.current, run.started)
  runtime.stays = irreversible_of(run, run.current) == false or nil
  return make(run, "active", run.current.step_id, 0, json.raw(run.snapshot))
end

---The turn goes on as a resume at `wake_at`.
---@param run tidemill.Run
---@param step_id string
---@param wake_at integer
---@return table
function M.suspend(run, step_id, wake_at)
  local runtime = run.runtime
  runtime.turn, runtime.stays, runtime.progress = run.is_start and "start" or "message", nil, nil
  return make(run, "active", step_id, wake_at, present_state(run))
end

---The end of a turn of the kind `undo`: what it has brought; the rest is the host's.
---@param run tidemill.Run
---@return table
function M.undone(run)
  return make(run, "active", "", 0, present_state(run))
end

---The end of a turn. What concerns the turn alone leaves the runtime part.
---@param run tidemill.Run
---@param status string
---@param step_id string
---@param wake_at integer
---@return table
function M.commit(run, status, step_id, wake_at)
  local runtime = run.runtime
  runtime.started, runtime.turn, runtime.hops, runtime.once = nil, nil, nil, nil
  runtime.input, runtime.rejected, runtime.stays, runtime.progress = nil, nil, nil, nil
  return make(run, status, step_id, wake_at, present_state(run))
end

return M
