--- How long a conversation may last from its start to its end, waiting included
--- (max_workflow_duration): a deadline of its own, looked at when a turn begins.
local clock = require "host.clock"
local deadlines = require "tidemill.deadlines"
local draft = require "tidemill.draft"
local execution = require "tidemill.execution"
local fault = require "tidemill.fault"
local parallel = require "tidemill.wait.parallel"

local M = {}

--- What goes on with the conversation; an undo does not.
local LIMITED = {
  start = true, message = true, command = true, approval = true, event = true, wake = true,
  pause = true, unpause = true, checkpoint = true,
}

---@param run tidemill.Run whose conversation starts
function M.begin(run)
  local most = run.root.inherited.max_duration_ms
  deadlines.set(run.runtime, "workflow", most > 0 and run.turn.now + most or nil)
end

---While it is paused, no time passes for it.
---@param run tidemill.Run
---@param at integer?
---@return boolean
local function has_passed(run, at)
  local turn = run.turn
  if not at or turn.status == "paused" then return false end
  return LIMITED[turn.began_as] ~= nil and clock.now() >= at
end
M.has_passed = has_passed

---@param run tidemill.Run
---@return boolean
function M.is_over(run)
  return run.turn.kind ~= "start" and has_passed(run, deadlines.at(run.runtime, "workflow"))
end

---A step that waits, or was interrupted, has no record of its end yet.
---@param run tidemill.Run
---@param step tidemill.Step
---@param failure tidemill.Fault
local function record(run, step, failure)
  local runtime, wait = run.runtime, run.runtime.wait
  if wait and not wait.failed then
    execution.enter(run, step, wait.asked, wait.attempt)
  elseif run.turn.kind == "resume" and runtime.started then
    execution.enter(run, step)
    if step.step_type == "parallel" then parallel.recover(run, step) end
  else
    return
  end
  draft.step(run, step, { error = { code = failure.code, message = failure.message } })
end
M.record = record

---Ends the conversation, whatever has come in.
---@param run tidemill.Run
function M.expire(run)
  local step = run.flow.steps[run.turn.step]
  local failure = fault.new("flow.timeout", ("the conversation has lasted longer than the %d "
    .. "seconds that it may; start anew, or raise performance_config.max_workflow_duration")
    :format(run.root.inherited.max_duration_ms // 1000))
  record(run, step, failure)
  return execution.finish(run, "expired", failure, step)
end

return M
