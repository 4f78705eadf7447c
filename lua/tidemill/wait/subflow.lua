--- A step that waits for another flow of the system: with arguments in, and a result out.
local execution = require "tidemill.execution"
local fault = require "tidemill.fault"
local frames = require "tidemill.frames"
local kinds = require "tidemill.kinds"
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

---@param run tidemill.Run
---@param step tidemill.Step
---@return string? next_step
function M.enter(run, step)
  local ok, flow, given = xpcall(begin, fault.caught, run, step)
  if not ok then return execution.fail(run, step, fault.of(flow)) end
  frames.push(run, flow, { step = step.step_id, why = "subflow", started = run.started }, given)
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

local function settle(run, step, ended)
  local pass = { output = result_of(step, ended) }
  return transition.settle(run, step, pass), pass
end

---The other flow has ended and is off the stack.
---@param run tidemill.Run
---@param step tidemill.Step
---@param started integer? when the step began
---@param ended table the state of the other flow
---@return string? next_step
function M.leave(run, step, started, ended)
  execution.enter(run, step, started)
  local ok, next_step, pass = xpcall(settle, fault.caught, run, step, ended)
  if not ok then return execution.fail(run, step, fault.of(next_step)) end
  execution.complete(run, step, pass)
  return next_step
end

return M
