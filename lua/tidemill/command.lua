--- What a user says about the conversation instead of answering: back, skip, cancel, restart,
--- help. By a request, or by phrases that a flow has for them. What the flow does not allow is
--- answered at the prompt, with the reason; it is no attempt.
local clock = require "host.clock"
local digression = require "tidemill.digression"
local execution = require "tidemill.execution"
local fault = require "tidemill.fault"
local input = require "tidemill.input"
local journal = require "host.journal"
local json = require "host.json"
local schema = require "tidemill.schema"

local M = {}

---@class tidemill.Prompt what a waiting step does for a command
---@field tell? fun(run: tidemill.Run, step: tidemill.Step, text: string) asks again, with a reason
---@field skip? fun(run: tidemill.Run, step: tidemill.Step): string? step that follows
---@field help? fun(step: tidemill.Step): string what may be answered

local function refuse(run, step, wait, reason)
  if wait.tell then return wait.tell(run, step, reason) end
  error(fault.new("command.refused", reason, { status = "conflict", turn = true }), 0)
end

local commands = {}

function commands.skip(run, step, wait)
  if not wait.skip then return refuse(run, step, wait, "There is nothing to skip here.") end
  if not run.flow.settings.allow_step_skipping or input.blank(step.input) == nil then
    return refuse(run, step, wait, "This question cannot be skipped.")
  end
  return wait.skip(run, step)
end

function commands.cancel(run, step, wait)
  if run.root.settings.allow_early_termination then return execution.finish(run, "cancelled") end
  return refuse(run, step, wait, "The conversation cannot be ended here: it still needs an answer.")
end

--- The host goes back to the state and the prompt that were, or refuses what the flow forbids.
function commands.back(run)
  journal.rollback(run.id, 1)
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
local function offered(run, step)
  local names = { "restart" }
  if (run.runtime.rollback or 0) > 0 then names[#names + 1] = "back" end
  if run.root.settings.allow_early_termination then names[#names + 1] = "cancel" end
  if run.flow.settings.allow_step_skipping and input.blank(step.input) ~= nil then
    names[#names + 1] = "skip"
  end
  table.sort(names)
  return names
end

function commands.help(run, step, wait)
  if not wait.help then return refuse(run, step, wait, "There is no question to help with.") end
  return wait.tell(run, step, ("%s You can also say: %s."):format(wait.help(step),
    table.concat(offered(run, step), ", ")))
end

M.names = { back = true, skip = true, cancel = true, restart = true, help = true }

---@param run tidemill.Run
---@param step tidemill.Step at which the conversation waits
---@param wait tidemill.Wait
---@param name string
---@return string? next_step
function M.run(run, step, wait, name)
  local command = commands[name]
  if not command then
    error(fault.new("command.unsupported", ("the command '%s' is not supported yet")
      :format(fault.printable(name, 64)), { status = "unsupported", turn = true }), 0)
  end
  execution.enter(run, step, run.runtime.wait and run.runtime.wait.asked or clock.now(),
    run.runtime.wait and run.runtime.wait.attempt)
  return command(run, step, wait)
end

---- phrases ----

local function compile_language(phrases, what, report)
  local compiled = {}
  for _, name in ipairs(schema.sorted_keys(phrases)) do
    if not M.names[name] then
      report(("%s: there is no command '%s'%s"):format(what, name, schema.hint(name, M.names)),
        "fields")
    elseif not schema.is_list(phrases[name]) then
      report(("%s.%s: must be a list of texts"):format(what, name), "fields")
    else
      for _, phrase in ipairs(phrases[name]) do
        if type(phrase) ~= "string" or not utf8.len(phrase) then
          report(("%s.%s: must be a list of texts"):format(what, name), "fields")
        else
          compiled[digression.normalized(phrase)] = name
        end
      end
    end
  end
  return compiled
end

---`phrases = { cancel = { "stop" } }`, or by language: `{ en = { cancel = … }, de = … }`.
---@param given table?
---@param report fun(text: string, rule: string)
---@return { all: table<string, string>?, by: table<string, table<string, string>>? }
function M.compile(given, report)
  local by_language = false
  for key, value in pairs(given or {}) do
    by_language = by_language or type(key) == "string" and not M.names[key]
      and type(value) == "table" and not schema.is_list(value)
  end
  if not by_language then return { all = compile_language(given or {}, "phrases", report) } end
  local by = {}
  for _, language in ipairs(schema.sorted_keys(given)) do
    if type(given[language]) ~= "table" then
      report(("phrases.%s: must be a table of commands"):format(language), "fields")
    else
      by[language] = compile_language(given[language], "phrases." .. language, report)
    end
  end
  return { by = by }
end

--- Of one language where the session says which (metadata.language), else of all.
local function find(phrases, said, language)
  if phrases.all then return phrases.all[said] end
  if phrases.by[language] then return phrases.by[language][said] end
  for _, name in ipairs(schema.sorted_keys(phrases.by)) do
    if phrases.by[name][said] then return phrases.by[name][said] end
  end
end

---The command that the user's answer is a phrase of.
---@param run tidemill.Run
---@param step tidemill.Step that asks
---@return string? name
function M.of(run, step)
  if type(run.input) ~= "string" then return nil end
  local said = digression.normalized(run.input)
  if digression.is_option(step, said) then return nil end
  local language = run.session.metadata.language
  return find(run.flow.phrases, said, language) or find(run.root.phrases, said, language)
end

return M
