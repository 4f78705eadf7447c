--- After a step's work: what of its pass is kept in state, and which step comes next.
local context = require "tidemill.context"
local fault = require "tidemill.fault"
local frames = require "tidemill.frames"
local json = require "host.json"
local kinds = require "tidemill.kinds"
local template = require "tidemill.template"
local text = require "host.text"

local M = {}

--- What one execution of a step brought.
---@class tidemill.Pass
---@field output any
---@field outcome string? what an agent chose, or "custom"
---@field first integer? of a subflow: the number of the first execution with effects in it
---@field raw any? the output as JSON, where it was encoded already

local function check_types(run)
  for name, kind in pairs(run.flow.types) do
    local value = run.state[name]
    if value ~= nil and value ~= json.null and not kinds[kind](value) then
      fault.stop("state.type", ("the variable '%s' is declared as %s but was given a %s")
        :format(name, kind, type(value)))
    end
  end
end

local function put(run, name, value)
  local state, undo = run.state, run.undo
  if undo[name] == nil then
    local before = state[name]
    undo[name] = before == nil and json.null or { before }
  end
  state[name] = value
  run.state_text = nil
end

--- save_as holds the output. Of data_collection the first name does, and the fields of a structured
--- answer keep their own names.
local function store(run, step, output)
  if output == nil then return end
  if step.save_as then put(run, step.save_as, output) end
  if not step.collects then return end
  local fields = step.input and step.input.fields
  if not fields then return put(run, step.collects, output) end
  if not step.input.by_name[step.collects] then put(run, step.collects, output) end
  for _, field in ipairs(fields) do put(run, field.name, output[field.name]) end
end

---Undoes what the present step did to the state.
---@param run tidemill.Run
function M.restore(run)
  if run.snapshot then
    run.state, run.state_text = json.restore(run.snapshot), run.snapshot
    return
  end
  for name, before in pairs(run.undo) do
    if before == json.null then run.state[name] = nil else run.state[name] = before[1] end
    run.state_text = nil
  end
end

local OUTCOME_BYTES = 256
local LARGE_BYTES = 65536 -- an answer of that size may make the state too large

local function outcome_text(step, value)
  if value == nil or value == json.null then return nil end
  if type(value) == "table" or type(value) == "function" then
    fault.stop("branch.outcome", ("the condition of '%s' gave a %s; an outcome is a text, a number "
      .. "or true/false"):format(step.step_id, type(value)))
  end
  local outcome = template.display(value)
  local is_named = type(step.condition) == "string" and step.default_branch
  if #outcome > OUTCOME_BYTES and is_named then return nil end -- what somebody said: not listed
  if #outcome > OUTCOME_BYTES or not text.valid(outcome) then
    fault.stop("branch.outcome", ("the outcome of '%s' is no UTF-8 text of at most %d bytes; give "
      .. "the name of a branch"):format(step.step_id, OUTCOME_BYTES))
  end
  return outcome
end

--- A name means the output of this pass first: a member of it, or what it is saved as; then state.
local function named_outcome(run, step, pass)
  local path, output = step.condition_path, pass.output
  local name = path[1]
  if #path == 1 then
    if type(output) == "table" and output[name] ~= nil then return output[name] end
    local own = name == step.save_as or name == step.collects or name == "value" or name == "output"
    if own and output ~= nil then return pass.outcome or output end
  end
  local value = template.lookup(path, run)
  if value == nil and not step.default_branch then
    fault.stop("branch.unknown_name", ("the condition of '%s' names '%s', which is neither this "
      .. "step's output nor in state; save it in an earlier step or declare a default")
      :format(step.step_id, step.condition))
  end
  return value
end

local function outcome_of(run, step, pass)
  if step.classify then return pass.outcome end
  if type(step.condition) == "function" then
    local ctx = context.reader(run, step, "a condition")
    rawset(ctx, "output", pass.output)
    return step.condition(ctx)
  end
  return named_outcome(run, step, pass)
end

local function declared(branches)
  local names = {}
  for name in pairs(branches) do names[#names + 1] = name end
  table.sort(names)
  return table.concat(names, ", ")
end

--- The step that an outcome leads to. A decision without branches names the step itself.
local function target_of(step, outcome)
  local branches = step.branches or step.successors
  local target = outcome ~= nil and branches[outcome] or step.default_branch
  if target then return target end
  fault.stop("branch.none", ("the outcome %s of '%s' has no branch and there is no default; "
    .. "declared are: %s"):format(outcome and "'" .. outcome .. "'" or "(none)", step.step_id,
    declared(branches)))
end

local function choose(run, step, pass)
  if step.has_outcome then
    return step.is_end and "end" or target_of(step, pass.outcome)
  end
  if step.classify or step.condition ~= nil then
    local outcome = outcome_text(step, outcome_of(run, step, pass))
    if step.step_type == "decision" then pass.output = outcome end
    if step.is_end then return "end" end
    return target_of(step, outcome)
  end
  if step.is_end then return "end" end
  return step.next_steps[1] or "end"
end

---Keeps the output and chooses the next step.
---@param run tidemill.Run
---@param step tidemill.Step
---@param pass tidemill.Pass
---@return string next_step a step id or "end"
function M.settle(run, step, pass)
  if step.step_type ~= "decision" then store(run, step, pass.output) end
  local large = type(pass.output) == "string" and #pass.output > LARGE_BYTES
  if run.snapshot or large then context.check(run) end
  local next_step = choose(run, step, pass)
  if next_step:find "^flow:" then
    frames.check_depth(run)
    run.onward = step.onward
  end
  if step.step_type == "decision" then store(run, step, pass.output) end
  if next(run.flow.types) then check_types(run) end
  return next_step
end

return M
