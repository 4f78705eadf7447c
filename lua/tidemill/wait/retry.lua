--- Waiting at a step that has failed until it is tried again, without the turn in which it failed:
--- an operator has come who did not wait for that (a pause, a rollback, a migration). The step
--- then goes on as it would have in that turn.
local clock = require "host.clock"
local deadlines = require "tidemill.deadlines"
local execution = require "tidemill.execution"

local M = { statuses = { sleeping = true } }

--- What the next attempt finds in the runtime part.
local KEPT = { "attempt", "tried", "once", "rejected", "wait" }

---Ends the turn: from here on the conversation waits for the retry itself.
---@param run tidemill.Run of a turn that waits for it
---@param step tidemill.Step
function M.begin(run, step)
  local runtime, kept = run.runtime, { input = run.input }
  for _, name in ipairs(KEPT) do kept[name] = runtime[name] end
  runtime.attempt, runtime.tried = nil, nil
  runtime.wait = { failed = true, asked = clock.now(), retry = kept }
  deadlines.set(runtime.wait, "retry", run.turn.retry_at)
  return M.again(run, step)
end

---@return string
function M.missing()
  return "has failed, and is to be tried again"
end

---@param run tidemill.Run
---@param step tidemill.Step
function M.again(run, step)
  return execution.wait(run, step, "sleeping", { step_id = step.step_id,
    expires_at = deadlines.at(run.runtime.wait, "retry") })
end

---@param run tidemill.Run
---@param step tidemill.Step
---@return string? next_step
function M.wake(run, step)
  if deadlines.due(run) ~= "retry" then return M.again(run, step) end
  local runtime, kept = run.runtime, run.runtime.wait.retry
  for _, name in ipairs(KEPT) do runtime[name] = kept[name] end
  runtime.input, run.input = kept.input, kept.input
  return step.step_id
end

return M
