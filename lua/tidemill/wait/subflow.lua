--- A step that waits for another flow of the system: with arguments in, and a result out.
local clock = require "host.clock"
local deadlines = require "tidemill.deadlines"
local execution = require "tidemill.execution"
local fault = require "tidemill.fault"
local frames = require "tidemill.frames"
local kinds = require "tidemill.kinds"
local lifetime = require "tidemill.lifetime"
local step_runner = require "tidemill.step"
local template = require "tidemill.template"
local transition = require "tidemill.transition"

local M = { statuses = {} } -- the steps of the other flow wait, not this one

--- A template that is nothing but one name gives the value itself.
local function argument(given, run)
  if type(given) ~= "table" or not given.segments then return given end
  if #given.segments > 1 or #given.names == 0 then return template.render(given, run) end
  local value = template.lookup(given.names[1].path, run)
  return value == nil and template.render(given, run) or value
end

local function begin(run, step)
  step_runner.check_context(run, step)
  frames.check_depth(run)
  local flow, given = run.system.flows[step.flow], {}
  for name, value in pairs(step.arguments) do
    given[name] = argument(value, run)
    local kind = flow.types[name]
    if kind and not kinds[kind](given[name]) then
      fault.stop("subflow.argument", ("the argument '%s' of '%s' is a %s, and the flow '%s' "
        .. "declares it as %s"):format(name, step.step_id, type(given[name]), step.flow, kind))
    end
  end
  return flow, given
end

---When the time of the step is over.
---@param step tidemill.Step
---@param from integer? when it begins; nil: now
---@return integer? nil: it has as much as it takes
function M.expires_at(step, from)
  return step.timeout_ms > 0 and (from or clock.now()) + step.timeout_ms or nil
end

---@param run tidemill.Run
---@param step tidemill.Step
---@return string? next_step
function M.enter(run, step)
  local ok, flow, given = xpcall(begin, fault.caught, run, step)
  if not ok then return execution.fail(run, step, fault.of(flow)) end
  frames.push(run, flow, { step = step.step_id, why = "subflow", started = run.started,
    expires_at = M.expires_at(step) }, given)
  run.current = nil
  return flow.start_step
end

local function result_of(step, ended)
  if not step.result then return nil end
  local output = {}
  for i, path in ipairs(step.result.paths) do
    local value = ended
    for _, part in ipairs(path) do value = type(value) == "table" and value[part] or nil end
    if value == nil then
      fault.stop("subflow.result", ("the flow '%s' has ended without '%s', which '%s' expects of "
        .. "it as result"):format(step.flow, step.result.names[i], step.step_id))
    end
    if step.result.single then return value end
    output[step.result.names[i]] = value
  end
  return output
end

local function settle(run, step, ended, first)
  local pass = { output = result_of(step, ended), first = first }
  return transition.settle(run, step, pass), pass
end

---The other flow has ended and is off the stack.
---@param run tidemill.Run
---@param step tidemill.Step
---@param frame tidemill.Frame of the step
---@param ended table the state of the other flow
---@return string? next_step
function M.leave(run, step, frame, ended)
  execution.enter(run, step, frame.started)
  local ok, next_step, pass = xpcall(settle, fault.caught, run, step, ended, frame.first)
  if not ok then return execution.fail(run, step, fault.of(next_step)) end
  execution.complete(run, step, pass)
  return next_step
end

---Whether the time of a step on the stack is over, so that what has come in comes too late. An
---operator who holds the conversation does so first.
---@param run tidemill.Run
---@return boolean
function M.is_late(run)
  return run.turn.kind ~= "pause" and lifetime.has_passed(run, (deadlines.of_frames(run.runtime)))
end

---Leaves the flow whose step's time is over, with all that is on top of it: the step has failed.
---@param run tidemill.Run
---@param inner tidemill.Step that waits, or would be next
---@return string? next_step
function M.expire(run, inner)
  local _, position = deadlines.of_frames(run.runtime)
  local runtime, frame = run.runtime, run.runtime.frames[position]
  local step = frames.flow_of(run, frame.flow).steps[frame.step]
  local failure = fault.new("step.timeout", ("the flow '%s' took longer than the %d seconds that "
    .. "the step '%s' (%s) gives it; let it ask less, or raise the timeout"):format(step.flow,
    step.timeout_ms // 1000, step.step_id, execution.place_of(step)), { retryable = false })
  lifetime.record(run, inner, failure)
  while runtime.frames and #runtime.frames >= position do frames.pop(run) end
  runtime.wait, runtime.attempt, runtime.tried, runtime.once = nil, nil, nil, nil
  execution.enter(run, step, frame.started)
  return execution.fail(run, step, failure)
end

return M
