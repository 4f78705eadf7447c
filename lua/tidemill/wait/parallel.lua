--- A step whose branches run beside each other: each in a task of its own, with a state of its own.
--- It waits for as many of them as `join` says; the others are cancelled.
---
--- The branches' records follow the step's own, by branch name, whatever order they ended in, and
--- so does what those said that count; what others said is no reply, only the output of its step.
local clock = require "host.clock"
local context = require "tidemill.context"
local deadlines = require "tidemill.deadlines"
local draft = require "tidemill.draft"
local execution = require "tidemill.execution"
local fault = require "tidemill.fault"
local frames = require "tidemill.frames"
local json = require "host.json"
local rows = require "tidemill.rows"
local step_runner = require "tidemill.step"
local task = require "tidemill.task"
local timer = require "host.timer"
local transition = require "tidemill.transition"
local view = require "tidemill.view"

local M = { statuses = {} } -- no step of a branch waits for people or time

---@class tidemill.Branch
---@field name string
---@field run tidemill.Run
---@field task tidemill.Task? once it was begun
---@field status "queued"|"running"|"completed"|"failed"
---@field failure tidemill.Fault?
---@field failed_at string? the step
---@field counts boolean? it was completed before `join` was met

--- The branches of a step that runs.
---@class tidemill.Fork
---@field branches tidemill.Branch[] by name
---@field main tidemill.Task that waits for them
---@field gate tidemill.Gate
---@field done tidemill.Branch[] in the order in which they were completed
---@field failed tidemill.Branch[] likewise
---@field lost tidemill.Fault? ends the turn
---@field expired boolean? the step's time is over
---@field late boolean? so is that of what it belongs to, and a step was to be tried again

--- What happens to a branch instead of the rows that end a turn.
---@class tidemill.Ends
---@field finish fun(run: tidemill.Run, failure: tidemill.Fault?, step: tidemill.Step?)
---@field again fun(run: tidemill.Run, step: tidemill.Step, at: integer): string?
---@field lost fun(run: tidemill.Run, failure: tidemill.Fault)

---- one branch ----

local function sleep_until(at)
  local ms = at - clock.now()
  if ms > 0 then task.await(timer.start(ms)) end
end

--- Whether the time of the conversation, or of the flow that the step is in, has passed.
local function is_over(run)
  return (deadlines.of_whole(run.runtime) or math.huge) <= clock.now()
end

--- The step is tried again at that time; false: it is not, for then it is too late.
local function is_in_time(fork, run, at)
  sleep_until(at)
  if not is_over(run.parent) then return true end
  fork.late, run.current = true, nil
  task.wake(fork.main)
  return false
end

local function ends_of(fork, branch)
  local ends = {}
  function ends.finish(_, failure, step)
    branch.status = failure and "failed" or "completed"
    branch.failure, branch.failed_at = failure, step and step.step_id
    table.insert(failure and fork.failed or fork.done, branch)
    task.wake(fork.main)
  end
  function ends.lost(_, failure)
    fork.lost = failure
    task.wake(fork.main)
  end
  function ends.again(run, step, at)
    run.runtime.attempt, run.runtime.started = run.attempt + 1, nil
    local ok, err = rows.keep(run, draft.suspend(run, step.step_id, at))
    if not ok then
      local cause = fault.of(err)
      return ends.lost(run, fault.new(cause.code, cause.message, { turn = true,
        status = type(err) == "table" and err.status or nil }))
    end
    return is_in_time(fork, run, at) and step.step_id or nil
  end
  return ends
end

--- A copy of the state at the fork; of a flow its variables, with those that the state has by name.
local function state_of(run, plan, flow)
  if plan.flow then return json.restore(run.snapshot) end
  local given = {}
  for name in pairs(flow.variables) do given[name] = run.state[name] end
  return frames.initial_state(flow, given)
end

local function new_run(run, fork, branch, plan, unanswered)
  local flow = plan.flow or run.system.flows[plan.flow_id]
  local own = {
    id = run.id, conversation_id = run.conversation_id, system = run.system, config = run.config,
    session = run.session, input = run.input, is_start = run.is_start, calls = run.calls,
    output_limit = run.output_limit, turn = run.turn, parent = run, gate = fork.gate,
    branch = branch, ends = ends_of(fork, branch), bytes = 0,
    prefix = ("%s:%s."):format(run.place, plan.name), flow = flow,
    runtime = { step_seq = 0, message_seq = 0, started = run.started },
    kept = { key = ("%s:%s:kept:"):format(run.place, plan.name), rows = 0, steps = 0,
      messages = 0, events = 0 },
    steps = json.array {}, messages = json.array {}, events = json.array {}, undo = {},
  }
  local newest = rows.kept(own)
  if newest then
    own.state, own.runtime, own.bytes = newest.state, newest.runtime, newest.bytes
    own.step, own.wake_at = newest.step, newest.wake_at
  else
    own.state = state_of(run, plan, flow)
  end
  own.begun = own.runtime.started ~= nil
  own.interrupted = own.begun and (newest ~= nil or unanswered)
  frames.restore(own)
  return own
end

local function begin(branch, go)
  local run = branch.run
  branch.status = "running"
  branch.task = task.branch(function()
    local at = run.wake_at or 0
    if at > 0 and not is_in_time(run.parent.fork, run, at) then return nil end
    return go(run, run.step or run.flow.start_step)
  end, {
    dropped = function() run.dropped = true end,
    now = function() return run.started end,
  })
end

---- all of them ----

local function open(run, step)
  run.snapshot = run.state_text or assert(json.encode(run.state))
  local unanswered = run.unanswered
  run.unanswered = nil -- its branches made the calls
  local fork = { branches = {}, main = task.current(), gate = task.gate(), done = {}, failed = {} }
  for i, plan in ipairs(step.forks) do
    local branch = { name = plan.name, status = "queued" }
    branch.run = new_run(run, fork, branch, plan, unanswered)
    fork.branches[i] = branch
  end
  run.fork = fork
  return fork
end

---For a step that was interrupted and does not run again: its record has with it what its branches
---had come to.
---@param run tidemill.Run
---@param step tidemill.Step
function M.recover(run, step)
  local unanswered = run.unanswered
  for _, branch in ipairs(open(run, step).branches) do
    local own = branch.run
    if own.step and own.interrupted then
      branch.status = "running"
      execution.enter(own, own.flow.steps[own.step])
    end
  end
  run.unanswered = unanswered
end

local function begin_next(fork, step, go)
  local running = 0
  for _, branch in ipairs(fork.branches) do
    if branch.status == "running" then running = running + 1 end
  end
  for _, branch in ipairs(fork.branches) do
    if running >= step.concurrency then return end
    if branch.status == "queued" then
      begin(branch, go)
      running = running + 1
    end
  end
end

local function too_few(fork, step)
  local first = fork.failed[1]
  local others = #fork.failed > 1 and (" (and %d more have failed)"):format(#fork.failed - 1) or ""
  return fault.new("parallel.failed", ("of the %d branches of '%s' %d had to be completed, and the "
    .. "branch '%s' has failed in its step '%s': %s%s"):format(#fork.branches, step.step_id,
    step.join, first.name, first.failed_at, first.failure.message, others), { retryable = false })
end

--- Why it cannot be completed any more; nil while it can.
local function failure_of(fork, step)
  if fork.lost then return fork.lost end
  for _, branch in ipairs(fork.failed) do
    if branch.failure.fatal then return branch.failure end
  end
  if #fork.branches - #fork.failed < step.join then return too_few(fork, step) end
  if fork.late and #fork.done < step.join then
    return fault.new("step.timeout", ("a step in the branches of '%s' (%s:%d) was to be tried "
      .. "again, and the time of the flow, or of the conversation, is over"):format(step.step_id,
      step.source.file, step.source.line), { retryable = false })
  end
  if fork.expired and #fork.done < step.join then
    return fault.new("step.timeout", ("the branches of '%s' (%s:%d) took longer than its %d ms; do "
      .. "less in them, or raise its timeout"):format(step.step_id, step.source.file,
      step.source.line, step.timeout_ms), { retryable = false })
  end
end

local function watch(fork, step)
  if step.timeout_ms == 0 then return end
  return task.branch(function()
    fork.expired = task.await(timer.start(step.timeout_ms)) == true
    task.wake(fork.main)
  end, { dropped = function() end, now = function() end })
end

--- The one that writes a row last: a turn cannot go on before that is durable.
local function stop(fork)
  local gate = fork.gate
  local writes = gate.holder
  for _, branch in ipairs(fork.branches) do
    if branch.status == "running" and branch.task ~= writes then task.cancel(branch.task) end
  end
  if not writes then return end
  task.enter(gate)
  task.leave(gate)
  task.cancel(writes)
end

local function run_branches(run, step, go)
  local fork = open(run, step)
  local watching, failure = watch(fork, step), nil
  while not failure and #fork.done < step.join do
    begin_next(fork, step, go)
    task.park()
    failure = failure_of(fork, step)
  end
  if watching then task.cancel(watching) end
  stop(fork)
  if failure then error(failure, 0) end
  return fork
end

---- what they brought ----

local function copied(value)
  return type(value) == "table" and view.copy(value) or value
end

--- By name; what was completed only after `join` was met does not count.
local function results_of(fork, step)
  local results = {}
  for _, branch in ipairs(fork.branches) do results[branch.name] = { status = "cancelled" } end
  for _, branch in ipairs(fork.failed) do
    local failure = branch.failure
    results[branch.name] = { status = "failed", error = { code = failure.code,
      message = failure.message, step_id = branch.failed_at } }
  end
  for i = 1, step.join do
    local branch = fork.done[i]
    branch.counts = true
    results[branch.name] = { status = "completed", output = copied(branch.run.output),
      state = branch.run.state }
  end
  return results
end

local function output_of(run, step, results)
  if step.merge then
    local ctx <close> = context.reader(run, step, "merge")
    local value, err = step.merge(ctx, results)
    return value, err
  end
  local output = {}
  for name, result in pairs(results) do output[name] = result.output end
  return output
end

local function work(run, step, go)
  step_runner.check_context(run, step)
  local fork = run_branches(run, step, go)
  local value, err = output_of(run, step, results_of(fork, step))
  local pass = step_runner.checked_output(run, step, value, err)
  return transition.settle(run, step, pass), pass
end

---@param run tidemill.Run
---@param step tidemill.Step
---@param go fun(run: tidemill.Run, step_id: string?)
---@return string? next_step
function M.enter(run, step, go)
  local ok, next_step, pass = xpcall(work, fault.caught, run, step, go)
  if not ok then return execution.fail(run, step, fault.of(next_step)) end
  execution.complete(run, step, pass)
  return next_step
end

return M
