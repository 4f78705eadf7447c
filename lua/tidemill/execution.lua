--- One execution of a step, from the moment it begins to the record it leaves: completed, failed,
--- tried again later, or the end of the conversation. What comes next is returned as a step id;
--- nil means that the turn has ended.
local clock = require "host.clock"
local crypto = require "host.crypto"
local deadlines = require "tidemill.deadlines"
local draft = require "tidemill.draft"
local fault = require "tidemill.fault"
local frames = require "tidemill.frames"
local journal = require "host.journal"
local log = require "host.log"
local recovery = require "tidemill.recovery"
local transition = require "tidemill.transition"
local usage = require "tidemill.usage"

local M = {}

local BACKOFF_LONGEST_MS = 300000 -- unless the first delay is longer

---- ends ----

--- What is wrong is wrong with the request.
local REFUSED = { conflict = true, not_found = true, too_large = true }

---Nothing is written; the error is the turn's answer.
---@param run tidemill.Run|{ id: integer, turn: table } the latter where it had not come to a run
---@param err any
function M.fail_turn(run, err)
  local failure, turn, current = fault.of(err), run.turn, run.current
  local step_id = failure.step_id or current and current.step_id or turn.step
  local level, what = "error", "a turn failed: "
  if REFUSED[failure.status] then level, what = "info", "a turn was refused: " end
  log.write(level, what .. failure.message, { code = failure.code,
    conversation_id = turn.conversation_id, system = turn.system,
    step_id = step_id ~= "" and step_id or nil })
  journal.fail(run.id, { code = failure.code, message = failure.message, step_id = failure.step_id,
    status = failure.status or "script" })
end

local LIMITS = { ["script.cpu"] = true, ["script.memory"] = true, ["turn.too_large"] = true }

---What has come in was too much, and no function of the script has run: the conversation does not
---fail of it, and what it asks stays open.
---@param run tidemill.Run
---@param err any
---@return tidemill.Fault
function M.blamed(run, err)
  local failure = fault.of(err)
  if not run.weighs or not LIMITS[failure.code] then return failure end
  return fault.new("input.too_large", ("what came for the step '%s' is too large to be looked at "
    .. "within the limits of a step; send less. The step waits as before"):format(
    run.current.step_id), { status = "too_large", turn = true, step_id = run.current.step_id })
end

--- A draft that cannot be written ends the turn with that error.
local function write(run, act, what)
  local ok, err = act(run.id, what)
  if not ok then M.fail_turn(run, err) end
end

local SOMEBODY = { waiting_input = true, waiting_approval = true, waiting_event = true,
  waiting_agent = true }

--- Listed as checkpoint: it waits for somebody, so that one can go back there, steps were
--- completed, and enough time has passed since the last one.
local function is_checkpoint(run, status, now)
  local runtime, flow = run.runtime, run.flow
  local completed = runtime.completed or 0
  if not SOMEBODY[status] or not flow.auto_checkpoint then return false end
  if completed <= (runtime.checkpointed or 0) then return false end
  local due = runtime.checkpoint_at and runtime.checkpoint_at + flow.checkpoint_interval_ms
  if due and now < due then return false end
  runtime.checkpointed, runtime.checkpoint_at = completed, now
  return true
end

--- The name under which the wait is listed as checkpoint: what an operator gives it now, or its
--- step's, once; not where it waits because the step has failed.
local function name_of(run, step, status)
  local wait = run.runtime.wait
  if run.named or not SOMEBODY[status] or wait.failed or wait.named then return run.named end
  wait.named = step.checkpoint and true
  return step.checkpoint
end

--- Somebody is asked something new: what was asked before, and interrupted, is not asked in one go
--- any more, so that one goes back over what lies between.
local function part_prompts(run)
  for _, frame in ipairs(run.runtime.frames or {}) do
    if frame.wait then frame.wait.shown = nil end
  end
end

local function error_of(failure, step)
  return { code = failure.code, message = failure.message, step_id = step.step_id,
    compensation = failure.compensation }
end

---Ends the turn: the conversation waits at the step until somebody comes or a deadline passes;
---while it is paused none does. Of the rows of one wait, a rollback goes to the first.
---@param run tidemill.Run
---@param step tidemill.Step
---@param status string
---@param prompt table? what the user is asked
---@param failure tidemill.Fault? for which it waits
function M.wait(run, step, status, prompt, failure)
  local wait = run.runtime.wait
  wait.shown = (wait.shown or 0) + 1
  if wait.shown == 1 and SOMEBODY[status] then part_prompts(run) end
  local wake_at = status ~= "paused" and deadlines.earliest(run) or 0
  local made = draft.commit(run, status, step.step_id, wake_at)
  if status ~= "paused" and not wait.failed then draft.expect(run, step, wait.asked) end
  made.checkpoint = is_checkpoint(run, status, clock.now())
  made.checkpoint_name = name_of(run, step, status)
  made.checkpoint = made.checkpoint or made.checkpoint_name ~= nil
  made.prompt, made.error = prompt, failure and error_of(failure, step)
  write(run, journal.commit, made)
end

---Ends the conversation, or the branch. When its whole time is over stays known: it may be rolled
---back.
---@param run tidemill.Run
---@param status string
---@param failure tidemill.Fault?
---@param step tidemill.Step? that failed, where something did
function M.finish(run, status, failure, step)
  if run.ends then return run.ends.finish(run, failure, step) end
  run.runtime.wait = nil
  local made = draft.commit(run, status, "", 0)
  made.error = failure and error_of(failure, step)
  write(run, journal.commit, made)
end

---- failures ----

--- Since the step began, or was let run again after all of them had been used up.
local function attempts(run)
  return run.attempt - (run.runtime.tried or 0)
end

--- Exponential up to the longest, with a jitter that is the same wherever it is computed.
local function backoff_ms(run, step)
  local drawn = tonumber(crypto.digest(run.conversation_id .. ":" .. run.place, 8), 16) / (1 << 32)
  local ms = step.retry_delay_ms * 2.0 ^ math.min(attempts(run) - 1, 30)
  ms = math.min(ms, math.max(step.retry_delay_ms, BACKOFF_LONGEST_MS))
  return math.floor(ms * (1 + drawn / 4))
end

---Where the script defines the step: not every failure has a line of its own.
---@param step tidemill.Step
---@return string
local function place_of(step)
  return ("%s:%d"):format(step.source.file, step.source.line)
end
M.place_of = place_of

---A limit may have been reached where no line of the script is known.
---@param step tidemill.Step
---@param failure tidemill.Fault
function M.name_place(step, failure)
  failure.message = ("%s (in the step '%s', %s)"):format(failure.message, step.step_id,
    place_of(step))
end

--- An event for operators; what a step of the type user_input takes is its user's time.
local function tell_slow(run, step)
  local took = clock.now() - run.started
  if not step.expected_ms or took <= step.expected_ms then return end
  log.write("warning", ("a step was slow: it took %d ms, and %d were expected"):format(took,
    step.expected_ms), { event = "slow_step", conversation_id = run.conversation_id,
    step_id = step.step_id, system = run.system.name, took_ms = took })
end

---@param run tidemill.Run
---@param step tidemill.Step
---@param failure tidemill.Fault
---@param what string?
function M.report(run, step, failure, what)
  log.write("error", (what or "a step failed: ") .. failure.message, {
    conversation_id = run.conversation_id, step_id = step.step_id, code = failure.code,
    system = run.system.name, attempt = run.attempt, source = place_of(step),
    traceback = failure.traceback,
  })
end

--- Nothing is tried again behind the time of the flow or conversation that a step belongs to.
local function within(run, at)
  at = math.min(at, deadlines.of_whole(run.runtime) or at)
  return run.parent and within(run.parent, at) or at
end

---The step is tried again later.
---@param run tidemill.Run
---@param step tidemill.Step
function M.suspend(run, step)
  run.runtime.attempt, run.runtime.started = run.attempt + 1, nil
  local at = within(run, clock.now() + backoff_ms(run, step))
  if run.ends then return run.ends.again(run, step, at) end
  local made = draft.suspend(run, step.step_id, at)
  write(run, journal.suspend, made)
end

---The turn goes on at once, with what the host then finds of it.
---@param run tidemill.Run
---@param step { step_id: string }
function M.put_off(run, step)
  write(run, journal.suspend, draft.suspend(run, step.step_id, clock.now()))
end

--- What the steps of the conversation did outside is undone before it ends (undo.lua). From here on
--- nothing else can come of it, so nothing else is due.
local function fail_conversation(run, step, failure)
  local runtime = run.runtime
  if run.ends or not run.root.compensates then return M.finish(run, "failed", failure, step) end
  runtime.failing = error_of(failure, step)
  runtime.wait, runtime.deadlines, runtime.input, runtime.once = nil, nil, nil, nil
  M.put_off(run, step)
end

--- The flow on top has failed. What it interrupted goes on; a step that went to it has failed too.
local function fail_flow(run, step, failure)
  local frame = frames.pop(run)
  if frame.why == "digression" then return frame.step end
  if frame.why == "subflow" then
    step = run.flow.steps[frame.step]
    M.enter(run, step, frame.started)
    failure.retryable = false
    return M.fail(run, step, failure)
  end
  if run.runtime.frames then return fail_flow(run, step, failure) end
  return fail_conversation(run, step, failure)
end

--- No attempt is left, and no on_error leads on.
local function give_up(run, step, failure)
  local status = not run.ends and recovery.begin(run, step, failure)
  if status == "paused" then return M.wait(run, step, status, nil, failure) end
  if status then return M.wait(run, step, status, recovery.prompt(run, step)) end
  if not run.runtime.frames then return fail_conversation(run, step, failure) end
  return fail_flow(run, step, failure)
end

--- The new version cannot ask what is waited for.
local function fail_migration(run, step, failure)
  failure.step_id = step.step_id
  failure.message = ("after the migration the conversation would wait at the step '%s' of the flow "
    .. "'%s' (%s): %s"):format(step.step_id, run.flow.flow_id, place_of(step), failure.message)
  return M.fail_turn(run, failure)
end

---Records the failed attempt. Where memory was short no handler ran, so the error may be a text;
---the callers make it a fault.
---@param run tidemill.Run
---@param step tidemill.Step
---@param failure tidemill.Fault
---@param answered any? what the user had said
---@return string? next_step of on_error
function M.fail(run, step, failure, answered)
  transition.restore(run)
  failure = M.blamed(run, failure)
  if failure.turn and run.ends then return run.ends.lost(run, failure) end
  if failure.turn then return M.fail_turn(run, failure) end
  if run.turn.kind == "migrate" then return fail_migration(run, step, failure) end
  M.report(run, step, failure)
  tell_slow(run, step)
  draft.step(run, step, { input = answered, error = { code = failure.code,
    message = failure.message, source = place_of(step), traceback = failure.traceback } })
  if failure.retryable ~= false and attempts(run) <= step.max_retries then
    return M.suspend(run, step)
  end
  if run.runtime.correct then run.steps[#run.steps].turns = true end
  run.runtime.wait, run.runtime.attempt, run.runtime.started = nil, nil, nil
  run.runtime.tried, run.runtime.correct, run.runtime.undone, run.corrects = nil, nil, nil, nil
  if step.on_error and not failure.fatal then return step.on_error end
  return give_up(run, step, failure)
end

---- begin and completion ----

---@param run tidemill.Run
---@param step tidemill.Step
---@param started integer? when it began, where that was in an earlier turn
---@param attempt integer?
function M.enter(run, step, started, attempt)
  local runtime = run.runtime
  run.current, run.seq, run.attempt = step, runtime.step_seq + 1, attempt or runtime.attempt or 1
  run.started, runtime.started = started or runtime.started or clock.now(), nil
  local prefix = run.prefix or ""
  run.place, run.first_place = prefix .. run.seq, prefix .. run.seq - run.attempt + 1
  run.snapshot, run.broken, run.said, run.fork = nil, nil, nil, nil
  run.called, run.unanswered, run.interrupted = nil, run.interrupted, nil
  run.undo, run.ordinals, run.deadline = {}, {}, nil
  run.scope, run.drawn, run.review, run.reviewing = nil, nil, nil, nil
  run.emitted, run.transcript, run.weighs = nil, nil, nil
  if run.attempt == 1 then runtime.once, runtime.rejected = nil, nil end
  usage.begin(run)
end

local FEEDBACK_CHARACTERS, SUMMARY_CHARACTERS = 1000, 2000

--- What the conversation's record shows of it. The runtime part stays small; the whole answer is in
--- the transcript.
local function keep_for_record(run, metadata, output)
  local runtime = run.runtime
  if metadata.conversation_summary then
    runtime.summary = fault.printable(run.said.text, SUMMARY_CHARACTERS)
  elseif metadata.satisfaction_check or metadata.satisfaction_survey then
    runtime.feedback = type(output) == "string" and fault.printable(output, FEEDBACK_CHARACTERS)
      or output
  end
end

---Records the completed step.
---@param run tidemill.Run
---@param step tidemill.Step
---@param pass tidemill.Pass
---@param answered any? what the user had said
function M.complete(run, step, pass, answered)
  local output = pass.raw
  if output == nil then output = pass.output end
  local said = run.said
  local reply = said and draft.message(run, "agent", said.text,
    { step_id = step.step_id, agent = said.agent, provider = said.provider })
  if reply then output = nil end -- a row does not hold the text twice
  keep_for_record(run, step.metadata, output)
  tell_slow(run, step)
  run.output = pass.output
  draft.step(run, step, { input = answered, output = output, reply = reply, first = pass.first })
  run.runtime.wait, run.runtime.attempt, run.runtime.tried = nil, nil, nil
  run.runtime.started = nil
  run.last, run.current, run.weighs = step, nil, nil
end

return M
