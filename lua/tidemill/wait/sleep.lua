--- A step of the type `wait`: it waits for a time, or for something to happen outside.
local clock = require "host.clock"
local context = require "tidemill.context"
local deadlines = require "tidemill.deadlines"
local execution = require "tidemill.execution"
local fault = require "tidemill.fault"
local json = require "host.json"
local schema = require "tidemill.schema"
local step_runner = require "tidemill.step"
local template = require "tidemill.template"
local transition = require "tidemill.transition"

local M = { statuses = { sleeping = true, waiting_event = true } }

local LATEST_MS = 253402300799000 -- the end of the year 9999

--- A value, or what a function gives; "is" says what it must be.
local function given(run, step, name, read, is)
  local value = step[name]
  if type(value) == "function" then
    value = value(context.reader(run, step, "'" .. name .. "'"))
  end
  local ms = read(value)
  if ms then return ms end
  fault.stop("wait.time", ("'%s' of the step '%s' gave %s; it must be %s"):format(name,
    step.step_id, type(value) == "table" and "a table"
    or "'" .. fault.printable(template.display(value), 60) .. "'", is))
end

local function time_of(value)
  local ms = math.type(value) and math.tointeger(value)
  return ms and ms >= 0 and ms <= LATEST_MS and ms or nil
end

--- Until when; nil: until the event comes.
local function deadline_of(run, step, from)
  if step.seconds ~= nil then
    return from + given(run, step, "seconds", schema.duration,
      "a duration (seconds, or a text such as \"30m\")")
  elseif step.until_time ~= nil then
    return given(run, step, "until_time", time_of, "milliseconds since 1970, UTC")
  end
  return step.timeout_ms > 0 and clock.now() + step.timeout_ms or nil
end

local function begin(run, step)
  step_runner.check_context(run, step)
  local before = run.runtime.wait -- a migration has it wait anew
  local wait = { asked = run.started, from = before and before.from or run.started,
    event = step.event and template.render(step.event, run) }
  return wait, deadline_of(run, step, wait.from)
end

---@param run tidemill.Run
---@param step tidemill.Step
---@return string? next_step
function M.enter(run, step)
  local ok, wait, at = xpcall(begin, fault.caught, run, step)
  if not ok then return execution.fail(run, step, fault.of(wait)) end
  deadlines.set(wait, "sleep", at)
  run.runtime.wait = wait
  M.again(run, step)
end

---Goes on waiting; its user does not answer, but sees for what, and until when.
---@param run tidemill.Run
---@param step tidemill.Step
function M.again(run, step)
  local wait = run.runtime.wait
  execution.wait(run, step, step.event and "waiting_event" or "sleeping", { step_id = step.step_id,
    event = wait.event, expires_at = deadlines.at(wait, "sleep") or json.null })
end

--- `came`: the name of the event, in the record; its user does not go back over it.
local function settle(run, step, outcome, output, came)
  execution.enter(run, step, run.runtime.wait.asked)
  run.weighs = came ~= nil
  local pass = { output = output, outcome = outcome }
  local ok, next_step = xpcall(transition.settle, fault.caught, run, step, pass)
  if not ok then return execution.fail(run, step, fault.of(next_step), came) end
  execution.complete(run, step, pass, came)
  return next_step
end

---@param run tidemill.Run
---@param step tidemill.Step
---@return string? next_step
function M.event(run, step)
  local came, awaited = run.input, run.runtime.wait.event
  if came.name ~= awaited then
    error(fault.new("event.unexpected", ("the step '%s' waits for %s, and '%s' came")
      :format(step.step_id, awaited and "the event '" .. awaited .. "'" or "no event",
      fault.printable(came.name, 64)), { status = "conflict", turn = true,
      step_id = step.step_id }), 0)
  end
  deadlines.refuse_late(run, step, "sleep")
  local data = came.data
  if data == json.null then data = nil end
  run.input = nil -- its user has not said that
  return settle(run, step, "event", data, came.name)
end

---@param run tidemill.Run
---@param step tidemill.Step
---@return string? next_step
function M.wake(run, step)
  if deadlines.due(run) ~= "sleep" then return M.again(run, step) end
  return settle(run, step, "timeout")
end

---@param run tidemill.Run
---@return string
function M.missing(run)
  local event = run.runtime.wait.event
  return event and ("still waits for the event '%s'"):format(fault.printable(event, 64))
    or "still waits for its time"
end

return M
