--- Waiting at a step that has failed, whatever its type: its user's next message, or the operator
--- who resumes the conversation, lets it run again.
local command = require "tidemill.command"
local deadlines = require "tidemill.deadlines"
local draft = require "tidemill.draft"
local execution = require "tidemill.execution"
local fault = require "tidemill.fault"
local json = require "host.json"
local phrases = require "tidemill.phrases"
local recovery = require "tidemill.recovery"
local template = require "tidemill.template"

local M = { statuses = { waiting_input = true, failed = true } }

--- Late or not, what was said is in the transcript where the conversation goes on.
local function leave_silent(run, step, said)
  local silence = recovery.silence(run)
  if silence and silence.go then
    if said then draft.message(run, "user", said, { step_id = step.step_id }) end
    run.runtime.wait = nil
    return silence.go
  end
  return execution.finish(run, "expired", fault.new("interaction.timeout",
    ("nobody answered after the step '%s' had failed; start anew, or raise %s"):format(step.step_id,
      run.flow.ladders.no_input and "the last time of the flow's on_no_input"
        or "interaction_timeout")), step)
end

local function said_by_user(value)
  return type(value) == "table" and json.encode(value) or template.display(value)
end

---@return string
function M.missing()
  return "has failed, and is to be run again"
end

---@param run tidemill.Run
---@return boolean
function M.is_late(run)
  return deadlines.due(run) == "silence"
end

---@param run tidemill.Run
---@param step tidemill.Step
---@return string? next_step
function M.message(run, step)
  local said = said_by_user(run.input)
  if M.is_late(run) then return leave_silent(run, step, said) end
  draft.message(run, "user", said, { step_id = step.step_id })
  local name, given = phrases.of(run, step)
  if name then return command.run(run, step, M, name, given) end
  return recovery.again(run, step)
end

---Asks again, with a reason.
---@param run tidemill.Run
---@param step tidemill.Step
---@param text string
function M.tell(run, step, text)
  run.runtime.wait.hint = text
  local prompt = recovery.prompt(run, step)
  draft.message(run, "prompt", text .. "\n" .. prompt.text, { step_id = step.step_id })
  return execution.wait(run, step, "waiting_input", prompt)
end

---@return string text what may be answered
function M.help()
  return "The step before has failed, and any message runs it again."
end

---@param run tidemill.Run
---@param step tidemill.Step
function M.wake(run, step)
  if M.is_late(run) then return leave_silent(run, step) end
  return M.again(run, step)
end

---Goes on waiting for the user; an operator has come to run the step again.
---@param run tidemill.Run
---@param step tidemill.Step
---@return string? next_step
function M.again(run, step)
  local runtime = run.runtime
  if run.turn.status ~= "failed" then
    return execution.wait(run, step, "waiting_input", recovery.prompt(run, step))
  end
  runtime.input = runtime.wait.input
  run.input = runtime.input
  return recovery.again(run, step)
end

return M
