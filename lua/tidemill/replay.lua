--- Steps run again on paper: with the calls that were recorded and the times that were, on a copy
--- of the state; nothing leaves the host, nothing is written or logged. What a step reads and
--- writes is seen, and that is how the host knows what depends on what.
local context = require "tidemill.context"
local execution = require "tidemill.execution"
local fault = require "tidemill.fault"
local input = require "tidemill.input"
local json = require "host.json"
local step_runner = require "tidemill.step"
local template = require "tidemill.template"
local transition = require "tidemill.transition"

local M = {}

--- What a step looks at.
---@class tidemill.Reads
---@field names table<string, true> of the state
---@field all boolean? of its names: it looked at whatever there is
---@field input boolean? what the user said in this turn
---@field writes table<string, true> by its functions

--- One execution as it was.
---@class tidemill.Passage
---@field seq integer
---@field step_id string
---@field status string
---@field attempt integer
---@field start integer
---@field input any what the user said
---@field output any
---@field corrects integer? the execution that it stands for
---@field turns boolean? the way was another one from there
---@field undo string? the flow of its `undo`
---@field irreversible boolean?
---@field said any what the user had said last when it ran
---@field called boolean?
---@field confirmed table<string, true>? names in what the user was asked to confirm
---@field reads tidemill.Reads
---@field writes table<string, string|false> JSON by name; false: nothing
---@field next string
---@field result any its output, where it was what an agent said

---The values of a state by name, as JSON.
---@param state table
---@return table<string, string>
function M.texts(state)
  local texts = {}
  for name, value in pairs(state) do texts[name] = assert(json.encode(value)) end
  return texts
end

---Puts values in place, or away.
---@param state table
---@param writes table<string, string|false>
function M.write(state, writes)
  for name, text in pairs(writes) do
    if text then state[name] = json.restore(text) else state[name] = nil end
  end
end

---A run on paper.
---@param run tidemill.Run
---@param state table belongs to it
---@param calls table<string, any> recorded ones, by key
---@return tidemill.Run
function M.paper(run, state, calls)
  return { real = run, id = run.id, conversation_id = run.conversation_id, system = run.system,
    root = run.root, flow = run.flow, session = run.session, config = run.config, turn = run.turn,
    output_limit = run.output_limit, state = state, calls = calls, runtime = {} }
end

local function answer(paper, step, said, is_skipped)
  if is_skipped then return { output = input.blank(step.input) } end
  local accepted, hint = input.accept(step.input, said, nil, 1,
    function() return context.reader(paper, step, "a validate function") end)
  if accepted and not accepted.partial then
    return { output = accepted.value, outcome = accepted.outcome }
  end
  return nil, hint
end

---Applies what was answered, or is to have been: nil and why it is refused.
---@param run tidemill.Run on paper or not
---@param step tidemill.Step
---@param said any
---@param is_skipped boolean
---@return tidemill.Pass? pass
---@return string? next_step or the reason
function M.answer(run, step, said, is_skipped)
  local pass, hint = answer(run, step, said, is_skipped)
  if not pass then return nil, hint or "This answer is not complete." end
  return pass, transition.settle(run, step, pass)
end

local function run_step(paper, step, said, is_skipped)
  if step.step_type == "user_input" then return M.answer(paper, step, said, is_skipped) end
  local next_step, pass = step_runner.run(paper, step)
  return pass, next_step
end

local function written(paper, before)
  local after, writes = M.texts(paper.state), {}
  for name in pairs(paper.undo) do writes[name] = after[name] or false end
  for name in pairs(paper.reads.writes) do writes[name] = after[name] or false end
  for name, text in pairs(after) do
    if before[name] ~= text then writes[name] = text end
  end
  for name in pairs(before) do
    if not after[name] then writes[name] = false end
  end
  return writes
end

local CONFIRMS = { boolean = true, choice = true }

---The names in a prompt whose answer means nothing without it: yes, or the second one.
---@param paper tidemill.Run
---@param step tidemill.Step
---@return table<string, true>? names
function M.confirmed(paper, step)
  if step.step_type ~= "user_input" or not CONFIRMS[step.input.type] then return nil end
  local scope = { state = paper.state, session = paper.session, config = paper.config,
    reads = { names = {} } }
  pcall(template.render, step.prompt, scope)
  return scope.reads.names
end

---Runs one execution on paper. nil: it failed, was refused, or would have called the outside.
---@param paper tidemill.Run
---@param step tidemill.Step
---@param passage tidemill.Passage
---@param given { answer: any, is_skipped: boolean }? of a user_input
---@return { pass: tidemill.Pass, next: string, reads: tidemill.Reads, writes: table }? seen
---@return string? reason of a refused answer
---@return tidemill.Fault? failure
function M.run(paper, step, passage, given)
  local before = M.texts(paper.state)
  paper.runtime, paper.bytes = { step_seq = passage.seq - 1 }, 0
  execution.enter(paper, step, passage.start, passage.attempt)
  local real, started = paper.real, paper.real.started
  real.started = passage.start
  paper.input, paper.reads = passage.said, { names = {}, writes = {} }
  local ok, pass, next_step = xpcall(run_step, fault.caught, paper, step, given and given.answer,
    given and given.is_skipped)
  real.started = started
  if not ok or not pass or paper.broken then
    if not ok and fault.of(pass).turn then error(pass, 0) end
    transition.restore(paper)
    return nil, ok and next_step or nil, not ok and not paper.broken and fault.of(pass) or nil
  end
  return { pass = pass, next = next_step, reads = paper.reads, writes = written(paper, before) }
end

return M
