--- Taking back what steps did outside: the turn in which their `undo` functions run, the newest
--- execution first. Which ones, the host has found out.
---
--- Of a rollback a function that fails for good leaves the conversation where it was, unless it is
--- forced; what was undone before stays so, and is not undone again. Before a conversation fails
--- (compensate_on_failure) it is left as it is and named, and so it is when a rollback is forced.
local clock = require "host.clock"
local context = require "tidemill.context"
local deadlines = require "tidemill.deadlines"
local draft = require "tidemill.draft"
local execution = require "tidemill.execution"
local fault = require "tidemill.fault"
local flows = require "tidemill.flow"
local frames = require "tidemill.frames"
local journal = require "host.journal"
local json = require "host.json"
local log = require "host.log"
local outside = require "tidemill.outside"
local task = require "tidemill.task"

local M = {}

---A record that a rollback has brought back: what it waits for is as far away as it was then, and
---no execution gets the number of one that was undone, by which the outside would take its calls
---for those of the other. How long the conversation may last goes on counting, and so does what it
---has used. A fork knows how many executions it has not had itself, has used nothing yet, and how
---long it may last counts from when it was made; so does its pause, and the prompt that then comes
---is the first one of its own. An approval is asked anew, so no decision from before is for it.
---@param runtime table
---@param flow tidemill.Flow
function M.restored(runtime, flow)
  local restored = runtime.restored
  if not restored then return end
  runtime.restored = nil
  runtime.step_seq = math.max(runtime.step_seq or 0, restored.step_seq)
  runtime.inherited, runtime.usage = restored.inherited, restored.usage
  local most, whole = flow.inherited.max_duration_ms, deadlines.at(runtime, "workflow")
  deadlines.shift(runtime, restored.moved)
  if restored.forked and runtime.paused then
    runtime.paused.since, runtime.wait.shown = restored.forked, nil
  end
  if runtime.wait and runtime.wait.revision then
    runtime.wait.revision = restored.revision or runtime.wait.revision
  end
  if restored.forked and most > 0 then whole = restored.forked + most end
  deadlines.set(runtime, "workflow", restored.workflow or whole)
end

---- the end of the turn ----

--- Ends it: the host restores the target, or with an error what was there before.
local function finish(run, err)
  local ok, problem = journal.undone(run.id, draft.undone(run), err)
  if not ok then execution.fail_turn(run, problem) end
end

local NAMES_MOST = 20

--- Names of steps, each once.
local function names_of(ids)
  local names, seen = json.array {}, {}
  for _, id in ipairs(ids) do
    if not seen[id] and #names < NAMES_MOST then names[#names + 1] = id end
    seen[id] = true
  end
  return names
end

local function left_of(run)
  local ids = {}
  for i, item in ipairs(run.runtime.left or {}) do ids[i] = item.step_id end
  return names_of(ids)
end

local function irreversible_of(failing)
  local ids = {}
  for id in failing.irreversible:gmatch "[^,]+" do ids[#ids + 1] = id:match "^ *(.*)$" end
  return names_of(ids)
end

local function told(compensation)
  local undone = compensation.undone
  local said = undone == 1 and "1 step was undone" or ("%d steps were undone"):format(undone)
  if #compensation.irreversible > 0 then
    said = said .. "; could not be taken back: " .. table.concat(compensation.irreversible, ", ")
  end
  if #compensation.failed > 0 then
    said = said .. "; their undo failed: " .. table.concat(compensation.failed, ", ")
  end
  return compensation.limited and said .. "; what lies further back was not looked at" or said
end

--- The conversation has failed, as it was about to; its error says what became of its steps.
local function finish_failing(run)
  local failing = run.runtime.failing
  local compensation = { undone = failing.undone, failed = left_of(run),
    irreversible = irreversible_of(failing), limited = failing.limited or nil }
  local failure = fault.new(failing.code, ("%s (%s)"):format(failing.message, told(compensation)),
    { compensation = compensation })
  run.runtime.failing, run.runtime.left, run.runtime.attempt = nil, nil, nil
  return execution.finish(run, "failed", failure, { step_id = failing.step_id })
end

---- a function that has failed ----

local function give_up(run, step_id, reason)
  if run.undo_failed then
    run.undo_failed(step_id, reason)
    return false
  end
  finish(run, { code = "rollback.undo_failed", status = "conflict", step_id = step_id,
    message = ("the undo of the step '%s' failed, and the conversation stays where it was; what "
      .. "was undone already (%d of %d) is not undone again; roll back with force to leave the "
      .. "step as it is: %s"):format(step_id, #run.runtime.undone, #run.undo_list, reason) })
  return false
end

--- It stays as it is, or the rollback ends. Returns whether the next one may follow.
local function leave(run, item, reason)
  local runtime = run.runtime
  if not run.undo_forced then return give_up(run, item.step_id, reason) end
  local left = runtime.left or json.array {}
  left[#left + 1] = { seq = item.seq, step_id = item.step_id }
  runtime.left, runtime.attempt = left, nil
  run.undoing, run.current = nil, nil
  return true
end

--- The function has failed: it is tried again later, or left, or everything stays as it was.
local function fail(run, step, failure)
  if failure.turn then
    execution.fail_turn(run, failure)
    return false
  end
  execution.report(run, step, failure, "an undo failed: ")
  draft.step(run, step, { undoes = run.undoing.seq, error = { code = failure.code,
    message = failure.message, source = execution.place_of(step),
    traceback = failure.traceback } })
  run.runtime.started = nil
  if failure.retryable ~= false and run.attempt <= step.max_retries then
    execution.suspend(run, step)
    return false
  end
  return leave(run, run.undoing, tostring(failure))
end

---- one after the other ----

local function call(run, step, item)
  local state = frames.state_of(run, item.undo:match "^[^/]+") or {} -- of a branch: where it began
  local output = item.output
  if output == json.null then output = nil end
  local ctx <close> = context.undoer(run, step, state)
  local value, err = step.undo(ctx, output)
  if value == nil and err ~= nil then error(fault.of(err), 0) end
  if run.broken then error(run.broken, 0) end
  if run.deadline and clock.monotonic() > run.deadline then error(outside.step_timeout(run), 0) end
end

---A step with an `undo`, of a flow or of a branch that is made of steps.
---@param all table<string, tidemill.Flow>
---@param flow_id string
---@param step_id string
---@return tidemill.Step?
function M.find_step(all, flow_id, step_id)
  for _, flow in pairs(all) do
    for _, part in ipairs(flows.parts(flow)) do
      local step = part.flow_id == flow_id and part.steps[step_id]
      if step and step.undo then return step end
    end
  end
end

--- The conversation was migrated, and its version has no such function.
local function miss(run, item)
  local failure = fault.new("rollback.undo_missing", ("version %s of the system has no 'undo' of "
    .. "the step '%s' in the flow '%s'; look at what the step did"):format(run.turn.version,
    item.step_id, item.undo))
  log.write("error", "an undo failed: " .. failure.message, { code = failure.code,
    conversation_id = run.conversation_id, step_id = item.step_id, system = run.system.name })
  local step = { step_id = item.step_id, metadata = {} }
  execution.enter(run, step)
  draft.step(run, step, { undoes = item.seq, error = { code = failure.code,
    message = failure.message } })
  return leave(run, item, failure.message)
end

---Runs the `undo` of one execution, and records it.
---@param run tidemill.Run whose runtime.undone holds the seqs of those that were undone
---@param item { seq: integer, step_id: string, output: any, undo: string }
---@return boolean done the next one may follow; else the turn has ended
function M.one(run, item)
  local step = M.find_step(run.system.flows, item.undo, item.step_id)
  if not step then return miss(run, item) end
  run.undoing = item
  execution.enter(run, step)
  run.snapshot = run.state_text or assert(json.encode(run.state))
  if step.timeout_ms > 0 then run.deadline = clock.monotonic() + step.timeout_ms end
  local ok, err = xpcall(call, fault.caught, run, step, item)
  if not ok then return fail(run, step, run.broken or fault.of(err)) end
  draft.step(run, step, { undoes = item.seq })
  local runtime = run.runtime
  runtime.attempt, runtime.started = nil, nil
  if runtime.failing then
    runtime.failing.undone = runtime.failing.undone + 1
  else
    runtime.undone[#runtime.undone + 1] = item.seq
  end
  run.undoing, run.current = nil, nil
  return true
end

--- Those that are through: undone, or left.
local function settled(runtime)
  local seqs = {}
  for _, seq in ipairs(runtime.undone or {}) do seqs[seq] = true end
  for _, item in ipairs(runtime.left or {}) do seqs[item.seq] = true end
  return seqs
end

--- The one that waits to be tried again.
local function next_item(run)
  local over = settled(run.runtime)
  for _, item in ipairs(run.undo_list) do
    if not over[item.seq] then return item end
  end
end

--- Somebody has come who does not wait for the retry: with force the rollback goes on without it,
--- else it ends. Returns whether it goes on.
local function heed(run)
  local turn, item = run.turn, next_item(run)
  if not turn.retry_at or not item then return true end
  if turn.forced then
    run.runtime.forced, run.undo_forced = true, true
    return leave(run, item)
  end
  finish(run, { code = "rollback.given_up", status = "conflict", step_id = item.step_id,
    message = ("somebody else has come while the rollback waited to try the undo of the step '%s' "
      .. "again; the conversation is where it was, and what was undone already (%d of %d) is not "
      .. "undone again"):format(item.step_id, #run.runtime.undone, #run.undo_list) })
  return false
end

local function go_on(run)
  local over = settled(run.runtime)
  for _, item in ipairs(run.undo_list) do
    if not over[item.seq] and not M.one(run, item) then return end
  end
  if not run.runtime.failing then return finish(run) end
  if not run.turn.input.more then return finish_failing(run) end
  return execution.put_off(run, { step_id = run.runtime.failing.step_id })
end

---A limit has stopped one of the functions.
---@param run tidemill.Run
---@param step tidemill.Step
---@param failure tidemill.Fault
function M.stopped(run, step, failure)
  if not fail(run, step, failure) then return end
  task.pause()
  return go_on(run)
end

---A rollback.
---@param run tidemill.Run
function M.run(run)
  local runtime, given = run.runtime, run.input
  if run.turn.kind == "undo" then
    runtime.undone, runtime.left, runtime.forced = json.array {}, nil, nil
    runtime.attempt, runtime.tried, runtime.started = nil, nil, nil
  end
  run.undo_list, run.undo_forced, run.input = given.steps, given.force or runtime.forced, nil
  if heed(run) then return go_on(run) end
end

---The conversation is failing. The list is made anew whenever the turn goes on, but what of it is
---irreversible is looked for once: the calls of the functions themselves are none of its steps'.
---@param run tidemill.Run
function M.compensate(run)
  local failing, given = run.runtime.failing, run.turn.input
  if not failing.undone then
    failing.undone, failing.irreversible = 0, given.irreversible
    failing.limited = given.limited or nil
  end
  run.undo_list, run.undo_forced, run.input = given.steps, true, nil
  return go_on(run)
end

return M
