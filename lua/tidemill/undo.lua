--- Going back: the turn in which the `undo` functions of a rollback run, the newest execution
--- first, and what the first turn after it makes of the record. Which ones, and what is restored
--- when all of them are through, the host has found out. A function that fails for good leaves the
--- conversation where it was; what was undone before stays so, and is not undone again.
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
local outside = require "tidemill.outside"

local M = {}

---A record that a rollback has brought back: its deadlines are as far away as they were then, and
---no execution gets the number of one that was undone, by which the outside would take its calls
---for those of the other. A fork knows how many executions it has not had itself.
---@param runtime table
function M.restored(runtime)
  local restored = runtime.restored
  if not restored then return end
  runtime.restored = nil
  runtime.step_seq = math.max(runtime.step_seq or 0, restored.step_seq)
  runtime.inherited = restored.inherited
  deadlines.shift(runtime, restored.moved)
end

---- the turn ----

--- Ends it: the host restores the target, or with an error what was there before.
local function finish(run, err)
  local ok, problem = journal.undone(run.id, draft.undone(run), err)
  if not ok then execution.fail_turn(run.id, problem) end
end

local function give_up(run, step_id, reason)
  return finish(run, { code = "rollback.undo_failed", status = "conflict", step_id = step_id,
    message = ("the undo of the step '%s' failed, and the conversation stays where it was; what "
      .. "was undone already (%d of %d) is not undone again: %s"):format(step_id,
      #run.runtime.undone, #run.undo_list, reason) })
end

---The function has failed: it is tried again later, or everything stays as it was.
---@param run tidemill.Run
---@param step tidemill.Step
---@param failure tidemill.Fault
function M.fail(run, step, failure)
  if failure.turn then return execution.fail_turn(run.id, failure) end
  execution.report(run, step, failure, "an undo failed: ")
  draft.step(run, step, { undoes = run.undoing.seq, error = { code = failure.code,
    message = failure.message, source = execution.place_of(step),
    traceback = failure.traceback } })
  if failure.retryable ~= false and run.attempt <= step.max_retries then
    return execution.suspend(run, step)
  end
  return give_up(run, step.step_id, tostring(failure))
end

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

--- A step of the flow, or of a branch that is made of steps.
local function find_step(run, item)
  for _, flow in pairs(run.system.flows) do
    for _, part in ipairs(flows.parts(flow)) do
      local step = part.flow_id == item.undo and part.steps[item.step_id]
      if step and step.undo then return step end
    end
  end
end

--- Returns whether the next one may follow.
local function undo_one(run, item)
  local step = find_step(run, item)
  if not step then
    give_up(run, item.step_id, "this version of the system has no such function")
    return false
  end
  run.undoing = item
  execution.enter(run, step)
  run.snapshot = run.state_text or assert(json.encode(run.state))
  if step.timeout_ms > 0 then run.deadline = clock.monotonic() + step.timeout_ms end
  local ok, err = xpcall(call, fault.caught, run, step, item)
  if not ok then
    M.fail(run, step, run.broken or fault.of(err))
    return false
  end
  draft.step(run, step, { undoes = item.seq })
  local runtime = run.runtime
  runtime.undone[#runtime.undone + 1], runtime.attempt = item.seq, nil
  run.current = nil
  return true
end

---@param run tidemill.Run
function M.run(run)
  local runtime, list = run.runtime, run.input.steps
  run.undo_list, run.input = list, nil
  if run.turn.kind == "undo" then
    runtime.undone = json.array {}
    runtime.attempt, runtime.tried, runtime.started = nil, nil, nil
  end
  for i = #runtime.undone + 1, #list do
    if not undo_one(run, list[i]) then return end
  end
  return finish(run)
end

return M
