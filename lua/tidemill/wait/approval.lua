--- A step that waits for the decision of a role. Nothing that its user says gets past it; what was
--- decided, by whom, when and why is its output.
local clock = require "host.clock"
local deadlines = require "tidemill.deadlines"
local draft = require "tidemill.draft"
local execution = require "tidemill.execution"
local fault = require "tidemill.fault"
local json = require "host.json"
local step_runner = require "tidemill.step"
local template = require "tidemill.template"
local transition = require "tidemill.transition"

local M = { statuses = { waiting_approval = true } }

local function begin(run, step)
  step_runner.check_context(run, step)
  return template.render(step.prompt, run)
end

--- Its user does not answer, but sees who is asked for what.
local function commit(run, step, asked)
  local wait = run.runtime.wait
  execution.wait(run, step, "waiting_approval", { step_id = step.step_id, text = asked,
    role = step.role, revision = wait.revision,
    expires_at = deadlines.at(wait, "approval") or json.null })
end

---Asks, with a revision that no asking before it had.
---@param run tidemill.Run
---@param step tidemill.Step
---@return string? next_step
function M.enter(run, step)
  local ok, asked = xpcall(begin, fault.caught, run, step)
  if not ok then return execution.fail(run, step, fault.of(asked)) end
  local wait = run.runtime.wait or { asked = run.started }
  run.runtime.wait, wait.revision = wait, run.turn.revision + 1
  deadlines.set(wait, "approval", step.timeout_ms > 0 and clock.now() + step.timeout_ms or nil)
  draft.message(run, "prompt", asked, { step_id = step.step_id, agent = step.role })
  commit(run, step, asked)
end

---@param _ tidemill.Run
---@param step tidemill.Step
---@return string
function M.missing(_, step)
  return ("still needs the decision of the role '%s'"):format(step.role)
end

---Goes on waiting.
---@param run tidemill.Run
---@param step tidemill.Step
function M.again(run, step)
  commit(run, step, template.render(step.prompt, run))
end

local function decide(run, step, decision)
  execution.enter(run, step, run.runtime.wait.asked)
  decision.at = clock.now()
  local pass = { output = decision, outcome = decision.approved and "approved" or "rejected" }
  local ok, next_step = xpcall(transition.settle, fault.caught, run, step, pass)
  if not ok then return execution.fail(run, step, fault.of(next_step), decision) end
  execution.complete(run, step, pass)
  return next_step
end

local function present(value)
  if value ~= json.null then return value end
end

--- Was the decision made on what is asked now?
local function check_revision(run, step, revision)
  local asked = run.runtime.wait.revision
  if not revision or revision == asked then return end
  error(fault.new("approval.changed", ("the step '%s' asks anew since the revision %d that was "
    .. "decided on; read what it asks now, and decide with its revision %d"):format(step.step_id,
    revision, asked or 0), { status = "conflict", turn = true, step_id = step.step_id }), 0)
end

---@param run tidemill.Run
---@param step tidemill.Step
---@return string? next_step
function M.approval(run, step)
  local given = run.input
  if given.role ~= step.role then
    error(fault.new("approval.role", ("the step '%s' waits for the decision of the role '%s', and "
      .. "this came from %s"):format(step.step_id, step.role,
      present(given.role) and "'" .. fault.printable(given.role, 64) .. "'" or "no role"),
      { status = "conflict", turn = true, step_id = step.step_id }), 0)
  end
  check_revision(run, step, present(given.revision))
  deadlines.refuse_late(run, step, "approval")
  run.input = nil -- its user has not said that
  return decide(run, step, { approved = given.approved, role = step.role,
    user_id = present(given.user_id), comment = present(given.comment) })
end

---@param run tidemill.Run
---@param step tidemill.Step
---@return string? next_step
function M.wake(run, step)
  if deadlines.due(run) ~= "approval" then return M.again(run, step) end
  return decide(run, step, { approved = step.default == "approved", timed_out = true })
end

return M
