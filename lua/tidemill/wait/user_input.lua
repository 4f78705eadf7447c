--- A step that asks the user and waits: the prompt, the answer, and nobody answering.
local clock = require "host.clock"
local context = require "tidemill.context"
local deadlines = require "tidemill.deadlines"
local draft = require "tidemill.draft"
local execution = require "tidemill.execution"
local fault = require "tidemill.fault"
local input = require "tidemill.input"
local json = require "host.json"
local step_runner = require "tidemill.step"
local template = require "tidemill.template"
local transition = require "tidemill.transition"

local M = { statuses = { waiting_input = true } }

local function prompt_text(run, step)
  local asked = template.render(step.prompt, run)
  if step.input.type ~= "structured" then return asked, step.input.public end
  local public, question = input.shown(step.input, run.runtime.partial)
  if run.runtime.partial then return question or asked, public end
  return question and asked .. "\n" .. question or asked, public
end

--- Commits the conversation as waiting. The hint says why the answer before was refused.
local function commit_prompt(run, step, asked, public)
  local runtime = run.runtime
  execution.wait(run, step, "waiting_input", { step_id = step.step_id, text = asked,
    input_schema = public, attempt = runtime.attempt, hint = runtime.hint or json.null,
    expires_at = deadlines.at(run, "answer") or json.null })
end

local function ask(run, step, asked, public)
  local hint = run.runtime.hint
  deadlines.set(run, "answer", step.timeout_ms > 0 and clock.now() + step.timeout_ms or nil)
  draft.message(run, "prompt", hint and hint .. "\n" .. asked or asked, { step_id = step.step_id })
  commit_prompt(run, step, asked, public)
end

local function begin_prompt(run, step)
  step_runner.check_context(run, step)
  return prompt_text(run, step)
end

---@param run tidemill.Run
---@param step tidemill.Step
---@return string? next_step
function M.enter(run, step)
  local ok, asked, public = xpcall(begin_prompt, fault.caught, run, step)
  if not ok then return execution.fail(run, step, fault.of(asked)) end
  run.runtime.attempt, run.runtime.asked = 1, run.started
  ask(run, step, asked, public)
end

local function said_by_user(value)
  if type(value) == "table" then return json.encode(value) or "" end
  return value == nil and "" or template.display(value)
end

local function expire(run, step)
  execution.enter(run, step)
  local failure = fault.new("interaction.timeout", ("nobody answered '%s' within %d seconds; start "
    .. "anew, or raise its timeout")
    :format(step.step_id, step.timeout_ms // 1000))
  draft.step(run, step, { error = { code = failure.code, message = failure.message } })
  execution.finish(run, "expired")
end

--- Applies the answer: the next step, or nothing and what is still to be asked.
local function apply_answer(run, step)
  local runtime = run.runtime
  local accepted, hint = input.accept(step.input, run.input, runtime.partial, run.attempt,
    function() return context.reader(run, step, "a validate function") end)
  if not accepted or accepted.partial then
    runtime.hint = hint
    runtime.attempt = hint and run.attempt + 1 or 1
    if accepted then runtime.partial = accepted.partial end
    return nil, prompt_text(run, step)
  end
  local pass = { output = accepted.value, outcome = accepted.outcome }
  return transition.settle(run, step, pass), pass
end

---@param run tidemill.Run
---@param step tidemill.Step
---@return string? next_step
function M.message(run, step)
  if deadlines.due(run) == "answer" then return expire(run, step) end
  run.runtime.started = run.runtime.asked
  execution.enter(run, step)
  draft.message(run, "user", said_by_user(run.input), { step_id = step.step_id })
  local ok, next_step, pass, public = xpcall(apply_answer, fault.caught, run, step)
  if not ok then return execution.fail(run, step, fault.of(next_step), run.input) end
  if not next_step then return ask(run, step, pass, public) end
  execution.complete(run, step, pass, run.input)
  return next_step
end

---A deadline has passed, or was thought to: the prompt expires, or goes on waiting.
---@param run tidemill.Run
---@param step tidemill.Step
---@return string? next_step
function M.wake(run, step)
  if deadlines.due(run) == "answer" then return expire(run, step) end
  execution.enter(run, step)
  commit_prompt(run, step, prompt_text(run, step))
end

return M
