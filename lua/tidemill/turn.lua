--- The engine: one turn of one conversation, from what came in to exactly one end.
---
--- Steps run until one waits, the flow ends, or a step has failed for good. Every execution leaves
--- a record (execution.lua); a failed attempt leaves no trace in state. The runtime part of the
--- record holds what must survive: counters, the attempt, deadlines, the start of this step.
local clock = require "host.clock"
local command = require "tidemill.command"
local correct = require "tidemill.correct"
local deadlines = require "tidemill.deadlines"
local draft = require "tidemill.draft"
local execution = require "tidemill.execution"
local failed = require "tidemill.wait.failed"
local fault = require "tidemill.fault"
local frames = require "tidemill.frames"
local json = require "host.json"
local lifetime = require "tidemill.lifetime"
local migrate = require "tidemill.migrate"
local phrases = require "tidemill.phrases"
local retry = require "tidemill.wait.retry"
local step_runner = require "tidemill.step"
local system = require "tidemill.system"
local task = require "tidemill.task"
local undo = require "tidemill.undo"

local M = {}

local STEPS_PER_TURN = 1000

--- The steps that wait: one handler for each kind of turn that they take.
---@class tidemill.Wait
---@field statuses table<string, true> in which the conversation waits at such a step
---@field enter fun(run: tidemill.Run, step: tidemill.Step, go: fun(run: tidemill.Run,
---  step_id: string?)): string?
---@field message? fun(run: tidemill.Run, step: tidemill.Step): string?
---@field approval? fun(run: tidemill.Run, step: tidemill.Step): string?
---@field event? fun(run: tidemill.Run, step: tidemill.Step): string?
---@field wake? fun(run: tidemill.Run, step: tidemill.Step): string?
---@field again? fun(run: tidemill.Run, step: tidemill.Step): string? goes on waiting
---@field is_late? fun(run: tidemill.Run, step: tidemill.Step): boolean the time of its user is
---  over: whatever comes, `wake` is what happens

---@type table<string, tidemill.Wait>
local WAITS = {
  approval = require "tidemill.wait.approval",
  parallel = require "tidemill.wait.parallel",
  subflow = require "tidemill.wait.subflow",
  user_input = require "tidemill.wait.user_input",
  wait = require "tidemill.wait.sleep",
}

---@class tidemill.Scope
---@field run tidemill.Run
---@field key string of its result
---@field drawn integer
---@field thread thread in which it runs

---@class tidemill.Run
---@field id integer
---@field conversation_id string
---@field system tidemill.System
---@field root tidemill.Flow with which the conversation began
---@field root_state table? its state, while another flow is on top
---@field flow tidemill.Flow that runs, on top of the stack
---@field state table of that flow
---@field onward string? the step behind one that went to "flow:…"
---@field state_text string? the state as JSON, when known
---@field snapshot string? the state before the present step, when a script may change it
---@field undo_list table[]? of a rollback, or of what is failing: the executions, the newest first
---@field undo_forced boolean? one whose `undo` fails for good is left as it is
---@field undoing table? the execution whose `undo` runs
---@field undo table<string, any> what the present step overwrote: json.null for nothing
---@field runtime table
---@field session { id: string, user_id: string?, metadata: table }
---@field config table
---@field input any what the user said in this turn
---@field is_start boolean
---@field begun boolean a begin row is stored that says when the present step began
---@field called boolean? the present step has made a call to the outside
---@field unanswered boolean? it may have made one before the turn was interrupted
---@field interrupted boolean? so may the one that is entered next
---@field calls table<string, any> recorded calls that were not asked for again yet
---@field ordinals table<string, integer> of this step's calls
---@field emitted table[]? events of the present step
---@field transcript tm.Said[]? what was said before the present step, which sums it up
---@field events table[] those of steps that the next row records
---@field scope tidemill.Scope? the function of ctx:once that runs
---@field drawn integer? how many random numbers and ids the present step has drawn
---@field current tidemill.Step? that runs now
---@field last tidemill.Step? that was completed last in this turn
---@field reads tidemill.Reads? of a run on paper (replay.lua): what the present step looks at
---@field real tidemill.Run? of a run on paper: the one that it is about
---@field corrects integer? the execution that the present one stands for
---@field keeps boolean? of a correction: effects behind the present step stay, whatever it does
---@field undo_failed fun(step_id: string, reason: string)? instead of the end of a rollback
---@field seq integer of the present execution
---@field place string the same in keys of recorded calls
---@field first_place string that of the step's first attempt
---@field prefix string? of a branch: what its places begin with
---@field parent tidemill.Run? of a branch: that of the step that it belongs to
---@field gate tidemill.Gate? likewise: it writes its rows one at a time with the others
---@field branch tidemill.Branch? likewise
---@field kept { key: string, rows: integer, steps: integer, messages: integer, events: integer }?
---  likewise: how often its position was recorded, with how many of its records
---@field ends tidemill.Ends? likewise: what happens instead of the rows that end a turn
---@field fork tidemill.Fork? the branches of the present step
---@field output any of the step that was completed last
---@field attempt integer
---@field started integer
---@field deadline integer? monotonic
---@field weighs boolean? what came in is looked at, and no function of the script runs
---@field broken tidemill.Fault? ends the step even when a script caught it
---@field named string? a checkpoint is made, of this name
---@field said table? what the present step's agent said
---@field reviewing string? digest of the reply that another agent looks at
---@field review { agent: string, verdict: string, reason: string? }? what it said of it
---@field steps table[]
---@field messages table[]
---@field output_limit integer?
---@field bytes integer of what the steps brought since the last row
---@field meter tidemill.Meter? of the present execution
---@field dropped boolean? nothing may happen in its name any more

local function present(value)
  if value ~= json.null then return value end
end

local function find_flow(turn)
  local found = system.loaded(turn.system)
  local flow = found and found.flows[turn.flow_id]
  if flow then return found, flow end
  error(fault.new("flow.not_found", ("the system '%s' has no flow '%s'")
    :format(turn.system, tostring(turn.flow_id)), { status = "not_found", turn = true }), 0)
end

--- What a flow seals, nobody else can write; what is not sealed, anybody could have written.
local function check_sealed(flow, turn)
  if not flow.seal or not turn.unsealed then return end
  error(fault.new("seal.plaintext", ("flow '%s' seals what it stores, and conversation %s was "
    .. "read from rows that are not sealed: somebody else wrote them, or sealing was turned on "
    .. "later; in that case workflow_persistence.general.accept_plaintext: true lets them be read")
    :format(flow.flow_id, turn.conversation_id), { status = "corrupt", turn = true }), 0)
end

local function new_run(id, turn)
  local found, flow = find_flow(turn)
  local runtime = turn.runtime
  undo.restored(runtime, flow)
  runtime.step_seq, runtime.message_seq = runtime.step_seq or 0, runtime.message_seq or 0
  runtime.rollback = runtime.rollback or flow.inherited.rollback
  runtime.checkpoints = runtime.checkpoints or flow.inherited.checkpoints
  runtime.concurrency = runtime.concurrency or flow.inherited.concurrency
  local run = {
    id = id, conversation_id = turn.conversation_id, system = found, flow = flow,
    state = turn.state, runtime = runtime, config = found.config, input = present(turn.input),
    is_start = turn.kind == "start" or runtime.turn == "start", begun = runtime.started ~= nil,
    interrupted = runtime.started ~= nil, calls = turn.calls or {},
    steps = json.array {}, messages = json.array {}, events = json.array {},
    output_limit = found.output_limit, bytes = 0, turn = turn,
  }
  if turn.kind == "start" then
    local given = run.input or {}
    runtime.user_id, runtime.metadata = present(given.user_id), present(given.metadata)
    run.state = json.restore(flow.variables_text)
  end
  if run.is_start then run.input = run.input and present(run.input.message) end
  if turn.kind == "resume" and runtime.input ~= nil then run.input = present(runtime.input) end
  frames.restore(run)
  check_sealed(run.root, turn)
  check_sealed(run.flow, turn)
  run.session = { id = turn.session_id, user_id = runtime.user_id,
    metadata = runtime.metadata or {} }
  if turn.kind == "start" then lifetime.begin(run) end
  return run
end

---- steps ----

local go

--- Returns the next step, or nil when the turn has ended.
local function visit(run, step)
  execution.enter(run, step)
  local wait = WAITS[step.step_type]
  if wait then return wait.enter(run, step, go) end
  if step.timeout_ms > 0 then run.deadline = clock.monotonic() + step.timeout_ms end
  local ok, next_step, pass = xpcall(step_runner.run, fault.caught, run, step)
  if not ok then
    local failure = run.broken or fault.of(next_step)
    if failure.code == "script.memory" then execution.name_place(step, failure) end
    return execution.fail(run, step, failure)
  end
  execution.complete(run, step, pass)
  return next_step
end

local function endless(run, step)
  execution.enter(run, step)
  local names, seen = {}, {}
  for i = #run.steps, math.max(1, #run.steps - 200), -1 do
    local id = run.steps[i].step_id
    if not seen[id] then names[#names + 1] = id end
    seen[id] = true
  end
  table.sort(names)
  return execution.fail(run, step, fault.new("flow.endless",
    ("%d steps ran in one turn without waiting for anybody, in the loop: %s; let one of them ask "
      .. "or lead out"):format(STEPS_PER_TURN, table.concat(names, ", ")),
    { fatal = true, retryable = false }))
end

--- A branch has named a flow instead of a step: it gets those of its variables that the state has
--- by name, and afterwards the step's first successor follows.
local function enter_flow(run, flow_id)
  local flow, given = run.system.flows[flow_id], {}
  for name in pairs(flow.variables) do given[name] = run.state[name] end
  frames.push(run, flow, { step = run.onward, why = "goto" }, given)
  return flow.start_step
end

local function leave_flow(run)
  local ended = run.state
  local frame = frames.pop(run)
  if frame.why ~= "subflow" then return frame.step end
  return WAITS.subflow.leave(run, run.flow.steps[frame.step], frame, ended)
end

local function next_visit(run, step)
  local runtime = run.runtime
  runtime.hops = (runtime.hops or 0) + 1
  if runtime.hops > STEPS_PER_TURN then return endless(run, step) end
  if WAITS.subflow.is_late(run) then return WAITS.subflow.expire(run, step) end
  return visit(run, step)
end

function go(run, step_id)
  while step_id do
    local flow_id = step_id:match "^flow:(.+)"
    if flow_id then step_id = enter_flow(run, flow_id) end
    while step_id == "end" and frames.is_nested(run) do step_id = leave_flow(run) end
    if step_id == "end" then return execution.finish(run, "completed") end
    if step_id then step_id = next_visit(run, run.flow.steps[step_id]) end
  end
end

--- The step that a flow was called by goes on instead of what waits in that flow.
local function too_late(run)
  return go(run, WAITS.subflow.expire(run, run.flow.steps[run.turn.step]))
end

---- what comes in ----

local kinds = {}

function kinds.start(run)
  if type(run.input) == "string" and run.input ~= "" then
    draft.message(run, "user", run.input, {})
  end
  return go(run, run.flow.start_step)
end

local WAITS_FOR = {
  waiting_input = "for an answer of its user", waiting_approval = "for the approval of a role",
  waiting_event = "for an event", sleeping = "for a time", paused = "to be resumed",
}

local function not_waiting(status)
  error(fault.new("conversation.not_waiting", ("the conversation is %s%s; read what it does, or "
    .. "start another"):format(tostring(status),
    WAITS_FOR[status] and " and waits " .. WAITS_FOR[status] or ""),
    { status = "conflict", turn = true }), 0)
end

--- The step at which the conversation waits, and what it does with a turn of that kind.
local function waiting_step(run, kind)
  local turn, waits = run.turn, run.runtime.wait
  local step = run.flow.steps[turn.step]
  local wait = step and (waits and (waits.retry and retry or waits.failed and failed)
    or WAITS[step.step_type])
  if wait and wait.statuses[turn.status] and wait[kind] then return step, wait[kind], wait end
  return not_waiting(turn.status)
end

--- What was asked is asked again by another version: by its rules, its times beginning anew.
local function wait_anew(run)
  local step, again, wait = waiting_step(run, "again")
  local waits = run.runtime.wait
  if not wait.enter then return go(run, again(run, step)) end
  execution.enter(run, step, waits.asked, waits.attempt)
  waits.shown, waits.named = nil, nil
  return go(run, wait.enter(run, step))
end

for _, kind in ipairs { "approval", "event", "wake" } do
  kinds[kind] = function(run)
    local step, handle = waiting_step(run, kind)
    return go(run, handle(run, step))
  end
end

--- Where it waits for somebody else than its user, nothing is taken but a phrase for a command.
function kinds.message(run)
  local step, _, wait = waiting_step(run, "again")
  if wait.message then return go(run, wait.message(run, step)) end
  execution.enter(run, step)
  run.weighs = true
  local name, given = phrases.of(run, step)
  if not name then return not_waiting(run.turn.status) end
  deadlines.refuse_late(run, step, "approval")
  draft.message(run, "user", run.input, { step_id = step.step_id })
  return go(run, command.run(run, step, wait, name, given))
end

--- Whatever it waits for; not while it is paused, or when an approval has come to something.
function kinds.command(run)
  local step, _, wait = waiting_step(run, "again")
  deadlines.refuse_late(run, step, "approval")
  if wait.is_late and wait.is_late(run, step) then return go(run, wait.wake(run, step)) end
  if run.input.trail then return go(run, correct.run(run, step, wait, WAITS, visit)) end
  local next_step = command.run(run, step, wait, run.input.command)
  run.input = nil
  return go(run, next_step)
end

--- Where it waits is listed as checkpoint of the name that is given; nobody waits for a time.
function kinds.checkpoint(run)
  local step, again = waiting_step(run, "again")
  if run.turn.status == "sleeping" then return not_waiting("sleeping") end
  run.named = run.input.name
  return go(run, again(run, step))
end

--- An operator holds it: nothing but `unpause` moves it, and its deadlines stand still.
function kinds.pause(run)
  local step = waiting_step(run, "again")
  run.runtime.paused = { status = run.turn.status, since = clock.now() }
  return execution.wait(run, step, "paused")
end

function kinds.unpause(run)
  local paused, turn = run.runtime.paused, run.turn
  if turn.status ~= "paused" then
    error(fault.new("conversation.not_paused", ("the conversation is %s, not paused")
      :format(tostring(turn.status)), { status = "conflict", turn = true }), 0)
  end
  deadlines.shift(run.runtime, clock.now() - paused.since)
  run.runtime.paused, turn.status = nil, paused.status
  if lifetime.is_over(run) then return lifetime.expire(run) end
  if WAITS.subflow.is_late(run) then return too_late(run) end
  if paused.anew then return wait_anew(run) end
  local step, again = waiting_step(run, "again")
  return go(run, again(run, step))
end

kinds.undo = undo.run

--- The record is one of this version already (migrate.apply). While it is paused nothing is asked.
function kinds.migrate(run)
  local paused = run.runtime.paused
  if not paused then return wait_anew(run) end
  paused.anew = true
  return execution.wait(run, run.flow.steps[run.turn.step], "paused")
end

--- What the user has said in the turn is the input of its steps; nothing else that came in is.
local SAID = { start = true, message = true }

function kinds.resume(run)
  local runtime, turn = run.runtime, run.turn
  if runtime.failing then return undo.compensate(run) end
  if turn.began_as == "undo" then return undo.run(run) end
  if not SAID[turn.began_as] and runtime.input == nil then run.input = nil end
  if turn.retry_at then return retry.begin(run, run.flow.steps[turn.step]) end
  if runtime.correct then return go(run, correct.resume(run, WAITS, visit)) end
  return go(run, turn.step)
end

--- A limit stopped the coroutine: the step that ran has failed, or between two the one before.
--- Where the turn goes on from there, that is work of its own, with a budget of its own, and others
--- go first.
local function stopped(run, err)
  local step = run.current or run.last
  if not step then return execution.fail_turn(run, err) end
  local failure = fault.of(err)
  failure.retryable, failure.fatal = false, failure.fatal or run.keeps
  if not run.current then
    execution.enter(run, step)
    failure.fatal = true
  end
  execution.name_place(step, failure)
  if run.undoing then
    undo.stopped(run, step, failure)
    local corrects = run.runtime.correct
    if not corrects or not corrects.hint then return end
    task.pause()
    return go(run, correct.resume(run, WAITS, visit))
  end
  local next_step = execution.fail(run, step, failure)
  if next_step then task.pause() end
  return go(run, next_step)
end

local function kind_of(turn)
  local kind = kinds[turn.kind]
  if kind then return kind end
  error(fault.new("turn.unsupported", ("a turn of the kind '%s' is not supported yet")
    :format(tostring(turn.kind)), { status = "unsupported", turn = true }), 0)
end

---@class tidemill.Program
---@field run fun() in a coroutine of its own
---@field crashed fun(err: any) it raised: a fault of the runtime, or of what came in
---@field stopped fun(err: any) a limit stopped it; in a new coroutine
---@field dropped fun() its coroutine is not resumed any more
---@field now fun(): integer? when the present step began

---@param id integer
---@param turn table see docs/protocol.md
---@return tidemill.Program
function M.prepare(id, turn)
  local run
  local early = { id = id, turn = turn }
  return {
    run = function()
      local kind = kind_of(turn)
      if turn.kind == "migrate" then migrate.apply(turn) end
      run = new_run(id, turn)
      if lifetime.is_over(run) then return lifetime.expire(run) end
      if WAITS.subflow.is_late(run) then return too_late(run) end
      return kind(run)
    end,
    crashed = function(err)
      execution.fail_turn(run or early, run and execution.blamed(run, err) or err)
    end,
    stopped = function(err)
      if not run then return execution.fail_turn(early, migrate.stopped(turn, err)) end
      run.dropped = nil
      return stopped(run, err)
    end,
    now = function() return run and run.started or turn.now end,
    dropped = function()
      if run then run.dropped = true end
    end,
  }
end

return M
