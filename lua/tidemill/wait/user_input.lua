--- A step that asks the user and waits: the prompt, the answer, and nobody answering.
local clock = require "host.clock"
local command = require "tidemill.command"
local context = require "tidemill.context"
local deadlines = require "tidemill.deadlines"
local digression = require "tidemill.digression"
local draft = require "tidemill.draft"
local execution = require "tidemill.execution"
local fault = require "tidemill.fault"
local forms = require "tidemill.forms"
local frames = require "tidemill.frames"
local input = require "tidemill.input"
local json = require "host.json"
local phrases = require "tidemill.phrases"
local step_runner = require "tidemill.step"
local template = require "tidemill.template"
local transition = require "tidemill.transition"

local M = { statuses = { waiting_input = true } }

local NO_MATCH = {} -- instead of a pass: on_no_match leaves the prompt

--- What the conversation has come to at a prompt; in the runtime part while it waits.
---@class tidemill.PromptWait
---@field attempt integer
---@field asked integer when it was asked first
---@field hint string? why the answer before was refused
---@field partial table? the fields that are filled
---@field rung integer? of on_no_input, that comes next
---@field expires_at integer? when the last rung leaves the prompt
---@field deadlines table<string, integer>? "rung": when the next one comes

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
    expires_at = wait.expires_at or json.null })
end

--- The time begins anew: the first rung, and when the last one leaves the prompt.
local function arm(run, step)
  local wait, rungs = run.runtime.wait, step.no_input
  local now, last = clock.now(), rungs[#rungs]
  wait.rung = last and 1
  wait.expires_at = last and not last.say and now + last.after_ms or nil
  deadlines.set(wait, "rung", last and now + rungs[1].after_ms)
end

local function show(run, step, asked, public)
  local hint = run.runtime.wait.hint
  draft.message(run, "prompt", hint and hint .. "\n" .. asked or asked, { step_id = step.step_id })
  commit_prompt(run, step, asked, public)
end

local function ask(run, step, asked, public)
  arm(run, step)
  show(run, step, asked, public)
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
  runtime.wait = runtime.wait or { attempt = 1, asked = run.started,
    partial = forms.take(run, step) }
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

--- Leaves the prompt without an answer; a form that may be left is kept as far as it is filled.
local function give_up(run, step, failure, answered)
  forms.keep(run, step)
  draft.step(run, step, { input = answered,
    error = { code = failure.code, message = failure.message } })
  run.runtime.wait, run.runtime.attempt = nil, nil
  run.current = nil
end

--- A rung of on_no_input that leaves the prompt.
local function leave_silent(run, step, rung)
  enter(run, step)
  give_up(run, step, fault.new("interaction.timeout", ("nobody answered '%s' within %d seconds; "
    .. "start anew, or raise its timeout"):format(step.step_id, rung.after_ms // 1000)))
  if rung.close then return execution.finish(run, "expired") end
  return rung.go
end

--- A rung that says something; after a late one the others come as much later.
local function speak(run, step, rungs, at)
  local wait, now = run.runtime.wait, clock.now()
  local late = now - deadlines.at(wait, "rung")
  local following = rungs[at + 1]
  enter(run, step)
  local ok, said = xpcall(template.render, fault.caught, rungs[at].say, run)
  if not ok then return execution.fail(run, step, fault.of(said)) end
  draft.message(run, "prompt", said, { step_id = step.step_id })
  wait.rung = following and at + 1
  wait.expires_at = wait.expires_at and wait.expires_at + late
  deadlines.set(wait, "rung", following and now + following.after_ms - rungs[at].after_ms)
  return M.again(run, step)
end

--- Applies the answer: the next step, or nothing and what is still to be asked.
local function apply_answer(run, step)
  local wait = run.runtime.wait
  run.weighs = true
  local accepted, hint = input.accept(step.input, run.input, wait.partial, wait.attempt,
    function() return context.reader(run, step, "a validate function") end)
  run.weighs = true
  if not accepted or accepted.partial then
    local rung = hint and step.no_match and step.no_match[math.min(wait.attempt, #step.no_match)]
    if rung and rung.go then return rung.go, NO_MATCH end
    wait.hint = rung and template.render(rung.say, run) or hint
    wait.attempt = hint and wait.attempt + 1 or 1
    if accepted then wait.partial, wait.shown = accepted.partial, nil end
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

--- What comes of an answer, as one of the two above has it.
local function take(run, step, judge)
  local ok, next_step, pass, public = xpcall(judge, fault.caught, run, step)
  if not ok then return execution.fail(run, step, fault.of(next_step), run.input) end
  if not next_step then return ask(run, step, pass, public) end
  if pass == NO_MATCH then
    give_up(run, step, fault.new("input.no_match", ("'%s' was answered %d times without a match")
      :format(step.step_id, run.attempt)), run.input)
  elseif pass then
    execution.complete(run, step, pass, run.input)
  end
  return next_step
end

---Asks again, with a reason; what was said is no attempt, and the time that it has goes on.
---@param run tidemill.Run
---@param step tidemill.Step
---@param text string
function M.tell(run, step, text)
  run.runtime.wait.hint = text
  show(run, step, prompt_text(run, step))
end

---@param run tidemill.Run
---@param step tidemill.Step
---@return string
function M.missing(run, step)
  local fields = input.open(step.input, run.runtime.wait.partial)
  if not fields[1] then return "still needs an answer" end
  return "still needs: " .. table.concat(fields, ", ")
end

---@param step tidemill.Step
---@return string text what may be answered
function M.help(step)
  return input.expected(step.input)
end

---As if nothing had been answered; in a form that is begun, to the field that comes next.
---@param run tidemill.Run
---@param step tidemill.Step
---@return string? next_step
function M.skip(run, step)
  if input.is_begun(run.runtime.wait.partial) then
    local said = run.input
    run.input = ""
    local next_step = take(run, step, apply_answer)
    run.input = said
    return next_step
  end
  local pass = { output = input.blank(step.input) }
  local ok, next_step = xpcall(transition.settle, fault.caught, run, step, pass)
  if ok then
    execution.complete(run, step, pass)
    return next_step
  end
  transition.restore(run)
  return M.tell(run, step, "This question cannot be skipped.")
end

---Another answer for a field of the form that is begun.
---@param run tidemill.Run
---@param step tidemill.Step
---@param name string
---@param given any
---@return string? next_step
function M.change(run, step, name, given)
  local wait = run.runtime.wait
  run.weighs = true
  local ok, partial, hint = xpcall(input.change, fault.caught, step.input, name, given,
    wait.partial, function() return context.reader(run, step, "a validate function") end)
  if not ok then return execution.fail(run, step, fault.of(partial), given) end
  if not partial then return M.tell(run, step, hint) end
  wait.partial, wait.hint, wait.attempt, wait.shown = partial, nil, 1, nil
  ask(run, step, prompt_text(run, step))
end

--- The rung of on_no_input whose time has come.
local function due_rung(run, step)
  return deadlines.due(run) == "rung" and step.no_input[run.runtime.wait.rung] or nil
end

---@param run tidemill.Run
---@param step tidemill.Step
---@return boolean
function M.is_late(run, step)
  local rung = due_rung(run, step)
  return rung ~= nil and not rung.say
end

---@param run tidemill.Run
---@param step tidemill.Step
---@return string? next_step
function M.message(run, step)
  local rung = due_rung(run, step)
  if rung and rung.close then return leave_silent(run, step, rung) end
  enter(run, step)
  run.weighs = true
  draft.message(run, "user", said_by_user(run.input), { step_id = step.step_id })
  if rung and rung.go then return leave_silent(run, step, rung) end
  local name, given = phrases.of(run, step)
  if name then return command.run(run, step, M, name, given) end
  return take(run, step, understand)
end

---Goes on waiting, with the same prompt.
---@param run tidemill.Run
---@param step tidemill.Step
function M.again(run, step)
  commit_prompt(run, step, prompt_text(run, step))
end

---@param run tidemill.Run
---@param step tidemill.Step
---@return string? next_step
function M.wake(run, step)
  local at, rung = run.runtime.wait.rung, due_rung(run, step)
  if not rung then
    enter(run, step)
    return M.again(run, step)
  end
  if rung.say then return speak(run, step, step.no_input, at) end
  return leave_silent(run, step, rung)
end

return M
