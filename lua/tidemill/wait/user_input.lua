--- A step that asks the user and waits: the prompt, the answer, and nobody answering.
local clock = require "host.clock"
local context = require "tidemill.context"
local deadlines = require "tidemill.deadlines"
local digression = require "tidemill.digression"
local draft = require "tidemill.draft"
local execution = require "tidemill.execution"
local fault = require "tidemill.fault"
local frames = require "tidemill.frames"
local input = require "tidemill.input"
local json = require "host.json"
local step_runner = require "tidemill.step"
local template = require "tidemill.template"
local transition = require "tidemill.transition"

local M = { statuses = { waiting_input = true } }

--- What the conversation has come to at a prompt; in the runtime part while it waits.
---@class tidemill.PromptWait
---@field attempt integer
---@field asked integer when it was asked first
---@field hint string? why the answer before was refused
---@field partial table? the fields that are filled
---@field deadlines table<string, integer>? "answer": when it expires

local function prompt_text(run, step)
  local asked, partial = template.render(step.prompt, run), run.runtime.wait.partial
  if step.input.type ~= "structured" then return asked, step.input.public end
  local public, question = input.shown(step.input, partial)
  if partial then return question or asked, public end
  return question and asked .. "\n" .. question or asked, public
end

local function commit_prompt(run, step, asked, public)
  local wait = run.runtime.wait
  execution.wait(run, step, "waiting_input", { step_id = step.step_id, text = asked,
    input_schema = public, attempt = wait.attempt, hint = wait.hint or json.null,
    expires_at = deadlines.at(wait, "answer") or json.null })
end

local function ask(run, step, asked, public)
  local wait = run.runtime.wait
  local said = wait.hint and wait.hint .. "\n" .. asked or asked
  deadlines.set(wait, "answer", step.timeout_ms > 0 and clock.now() + step.timeout_ms or nil)
  draft.message(run, "prompt", said, { step_id = step.step_id })
  commit_prompt(run, step, asked, public)
end

local function begin_prompt(run, step)
  step_runner.check_context(run, step)
  return prompt_text(run, step)
end

---Asks; what an interrupted prompt had come to is still there.
---@param run tidemill.Run
---@param step tidemill.Step
---@return string? next_step
function M.enter(run, step)
  local runtime = run.runtime
  runtime.wait = runtime.wait or { attempt = 1, asked = run.started }
  local ok, asked, public = xpcall(begin_prompt, fault.caught, run, step)
  if not ok then return execution.fail(run, step, fault.of(asked)) end
  ask(run, step, asked, public)
end

local function said_by_user(value)
  if type(value) == "table" then return json.encode(value) or "" end
  return value == nil and "" or template.display(value)
end

--- The execution that began when the prompt was asked.
local function enter(run, step)
  local wait = run.runtime.wait
  execution.enter(run, step, wait.asked, wait.attempt)
end

local function expire(run, step)
  enter(run, step)
  local failure = fault.new("interaction.timeout", ("nobody answered '%s' within %d seconds; start "
    .. "anew, or raise its timeout")
    :format(step.step_id, step.timeout_ms // 1000))
  draft.step(run, step, { error = { code = failure.code, message = failure.message } })
  execution.finish(run, "expired")
end

--- Applies the answer: the next step, or nothing and what is still to be asked.
local function apply_answer(run, step)
  local wait = run.runtime.wait
  local accepted, hint = input.accept(step.input, run.input, wait.partial, wait.attempt,
    function() return context.reader(run, step, "a validate function") end)
  if not accepted or accepted.partial then
    wait.hint = hint
    wait.attempt = hint and wait.attempt + 1 or 1
    if accepted then wait.partial = accepted.partial end
    return nil, prompt_text(run, step)
  end
  local pass = { output = accepted.value, outcome = accepted.outcome }
  return transition.settle(run, step, pass), pass
end

--- The step that the answer leads to: of the flow that it interrupts the prompt with, else by the
--- step's own rules; nothing and what is still to be asked.
local function understand(run, step)
  local other = digression.of(run, step)
  if not other then return apply_answer(run, step) end
  frames.check_depth(run)
  run.runtime.wait.hint = nil
  frames.push(run, other, { step = step.step_id, why = "digression" }, {})
  return other.start_step
end

---@param run tidemill.Run
---@param step tidemill.Step
---@return string? next_step
function M.message(run, step)
  if deadlines.due(run) == "answer" then return expire(run, step) end
  enter(run, step)
  draft.message(run, "user", said_by_user(run.input), { step_id = step.step_id })
  local ok, next_step, pass, public = xpcall(understand, fault.caught, run, step)
  if not ok then return execution.fail(run, step, fault.of(next_step), run.input) end
  if not next_step then return ask(run, step, pass, public) end
  if pass then execution.complete(run, step, pass, run.input) end
  return next_step
end

---A deadline has passed, or was thought to: the prompt expires, or goes on waiting.
---@param run tidemill.Run
---@param step tidemill.Step
---@return string? next_step
function M.wake(run, step)
  if deadlines.due(run) == "answer" then return expire(run, step) end
  enter(run, step)
  commit_prompt(run, step, prompt_text(run, step))
end

return M
