--- What a user says about the conversation instead of answering: back, skip, cancel, restart,
--- help, correct. By a request, or by phrases that a flow has for them (phrases.lua). What the flow
--- does not allow is answered at the prompt, with the reason; it is no attempt.
local clock = require "host.clock"
local correct = require "tidemill.correct"
local execution = require "tidemill.execution"
local fault = require "tidemill.fault"
local input = require "tidemill.input"
local journal = require "host.journal"
local json = require "host.json"

local M = {}

---@class tidemill.Prompt what a waiting step does for a command
---@field missing fun(run: tidemill.Run, step: tidemill.Step): string what it still needs
---@field tell? fun(run: tidemill.Run, step: tidemill.Step, text: string) asks again, with a reason
---@field skip? fun(run: tidemill.Run, step: tidemill.Step): string? step that follows
---@field help? fun(step: tidemill.Step): string what may be answered
---@field change? fun(run: tidemill.Run, step: tidemill.Step, name: string, given: any): string?
---  another answer for a field that is filled

local function refuse(run, step, wait, reason)
  if wait.tell then return wait.tell(run, step, reason) end
  error(fault.new("command.refused", reason, { status = "conflict", turn = true }), 0)
end

local commands = {}

function commands.skip(run, step, wait)
  if not wait.skip then return refuse(run, step, wait, "There is nothing to skip here.") end
  if not run.flow.settings.allow_step_skipping then
    return refuse(run, step, wait, "This question cannot be skipped.")
  end
  local may, reason = input.may_skip(step.input, run.runtime.wait.partial)
  if not may then return refuse(run, step, wait, reason) end
  return wait.skip(run, step)
end

function commands.cancel(run, step, wait)
  if run.root.settings.allow_early_termination then return execution.finish(run, "cancelled") end
  return refuse(run, step, wait, ("The conversation cannot be ended here: the step '%s' %s.")
    :format(step.step_id, wait.missing(run, step)))
end

--- Why not, for the user; of any other refusal what it says before it says what to do.
local NO_WAY_BACK = {
  ["rollback.disabled"] = "One cannot go back in this conversation.",
  ["rollback.limit"] = "One cannot go back any further.",
  ["rollback.migrated"] = "One cannot go back to what was asked before this service was renewed.",
  ["rollback.nothing"] = "There is no answer before this to go back to.",
}

--- The host goes back to the state and the prompt that were; where the flow forbids it, the turn
--- runs once more.
function commands.back(run, step, wait)
  local refused = run.turn.refused
  if not refused then
    journal.rollback(run.id, 1)
    return nil
  elseif not wait.tell then
    error(fault.new(refused.code, refused.message, { status = "conflict", turn = true }), 0)
  end
  return wait.tell(run, step, NO_WAY_BACK[refused.code]
    or ("One cannot go back: %s."):format(fault.reason(refused.message)))
end

function commands.restart(run)
  local runtime = run.runtime
  runtime.frames, runtime.flow, runtime.state, runtime.wait = nil, nil, nil, nil
  runtime.attempt, runtime.summary, runtime.feedback, runtime.forms = nil, nil, nil, nil
  run.flow, run.state = run.root, json.restore(run.root.variables_text)
  run.state_text, run.snapshot, run.undo = nil, nil, {}
  return run.root.start_step
end

--- The commands that are allowed here.
local function offered(run, step, wait)
  local names = { "restart" }
  if (run.runtime.rollback or 0) > 0 then names[#names + 1] = "back" end
  if run.root.settings.allow_early_termination then names[#names + 1] = "cancel" end
  local skips = wait.skip and run.flow.settings.allow_step_skipping
  if skips and input.may_skip(step.input, run.runtime.wait.partial) then
    names[#names + 1] = "skip"
  end
  table.sort(names)
  return names
end

function commands.help(run, step, wait)
  if not wait.help then return refuse(run, step, wait, "There is no question to help with.") end
  return wait.tell(run, step, ("%s You can also say: %s."):format(wait.help(step),
    table.concat(offered(run, step, wait), ", ")))
end

--- By a phrase: which of the user's words are which.
function commands.correct(run, step, wait)
  local names = run.input.names
  if not names then return correct.ask(run, step, wait) end
  return refuse(run, step, wait, ("This could mean '%s'; please say which one.")
    :format(table.concat(names, "', '")))
end

---@param run tidemill.Run
---@param step tidemill.Step at which the conversation waits
---@param wait tidemill.Wait
---@param name string
---@param given table? of a phrase with holes: the command as a client would have sent it
---@return string? next_step
function M.run(run, step, wait, name, given)
  local command = commands[name]
  if not command then
    error(fault.new("command.unsupported", ("the command '%s' is not supported yet")
      :format(fault.printable(name, 64)), { status = "unsupported", turn = true }), 0)
  end
  if given then run.input = given end
  execution.enter(run, step, run.runtime.wait and run.runtime.wait.asked or clock.now(),
    run.runtime.wait and run.runtime.wait.attempt)
  return command(run, step, wait)
end

return M
