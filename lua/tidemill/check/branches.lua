--- conditional_logic: can every outcome happen, and does every outcome lead somewhere?
---
--- The outcomes of a condition are known when the name it looks at is set by choices and yes/no
--- questions only; of anything else (a function, text, an agent) they are not.
local names_of = require "tidemill.check.names"
local paths = require "tidemill.check.paths"
local schema = require "tidemill.schema"

local M = {}

--- Adds what a step's answer can be; false when that is not known.
local function add_values(values, step, name)
  local input = step.input
  if input and input.by_name then input = input.by_name[name] end
  if not input then return false end
  if not input.required then values[1] = "open" end
  if input.type == "boolean" then
    values["true"], values["false"] = true, true
    return true
  end
  for _, option in ipairs(input.options or {}) do values[tostring(option.value)] = true end
  if input.allow_custom_response then values[1] = "open" end
  return input.options ~= nil
end

--- Does the condition mean the answer that the step itself asks for?
local function means_own_answer(step)
  local name = step.condition
  return name == step.collects or name == step.save_as or name == "value" or name == "output"
end

---The outcomes that the step's condition can have, or nil when they are not known. The entry [1]
---says that there may be others: no answer, or one in the user's own words, which is the outcome
---`custom` to the step that asks. A name that nothing sets is taken for the answer that was meant.
---@param names tidemill.Names
---@param step tidemill.Step
---@return table<string|integer, any>?
local function outcomes_of(names, step)
  local condition, values = step.condition, {}
  if step.step_type == "approval" then return { approved = true, rejected = true } end
  if step.step_type == "wait" then
    local ends = not step.event or step.timeout_ms > 0
    return { event = step.event and true, timeout = ends or nil }
  end
  if step.classify or type(condition) ~= "string" then return nil end
  local own = means_own_answer(step)
  if step.input and step.input.options and (own or not names_of.is_set(names, condition)) then
    add_values(values, step, condition)
    if step.input.allow_custom_response then values.custom = true end
    return values
  end
  if names_of.is_given(names, condition) or not names.writers[condition] then return nil end
  for id in pairs(names.writers[condition]) do
    if not add_values(values, names.flow.steps[id], condition) then return nil end
  end
  return values
end

local function quoted(list)
  for i, word in ipairs(list) do list[i] = "'" .. word .. "'" end
  return table.concat(list, ", ")
end

--- Those of an approval or a wait are the step's business.
local function check_keys(step, values, report)
  if step.has_outcome then return end
  for _, key in ipairs(schema.sorted_keys(step.branches)) do
    if not values[key] then
      report(step, ("conditional_logic: the outcome '%s' never happens: no option has it as value; "
        .. "the values are %s"):format(key, quoted(schema.sorted_keys(values))), "branches")
    end
  end
end

local function check_covered(step, values, report)
  if step.default_branch then return end
  local missing = {}
  for _, value in ipairs(schema.sorted_keys(values or {})) do
    if not step.branches[value] then missing[#missing + 1] = value end
  end
  if #missing > 0 then
    report(step, ("conditional_logic: no step is given for %s; add it or a default")
      :format(quoted(missing)), "branches")
  elseif not values or values[1] then
    report(step, "conditional_logic has no default: an outcome that is not listed fails the step; "
      .. "add default = \"a step\"", "branches", "warning")
  end
end

--- An approval without branches stops nothing. A function behind it may look at what was decided,
--- where that is kept.
local function check_gate(flow, step, report)
  local onward = not step.is_end and flow.steps[step.onward]
  if step.step_type ~= "approval" or step.branches or not onward then return end
  local kept = step.save_as or step.collects
  if kept and (onward.branches or onward.condition) then return end
  report(step, ("'%s' follows a rejection as it does an approval; give conditional_logic with "
    .. "'approved' and 'rejected'"):format(step.onward), "branches", kept and "warning" or "error")
end

local function check_condition(names, step, report)
  if step.classify or type(step.condition) ~= "string" then return end
  if means_own_answer(step) or names_of.is_set(names, step.condition) then return end
  local agent = step.agent and names.system.agents[step.agent]
  local level = (names.open or agent and agent.type == "custom") and "warning" or "error"
  report(step, ("condition '%s' is a name that nothing sets; save the answer under that name, or "
    .. "let the agent choose by classify = true"):format(step.condition), "conditions", level)
end

--- A successor that no branch leads to is never taken; without branches only the first one is.
local function check_successors(flow, step, report)
  if flow.end_steps[step.step_id] then return end
  local taken = {}
  for _, target in ipairs(paths.targets(step)) do taken[target] = true end
  for _, target in ipairs(step.next_steps) do
    if not taken[target] and not target:find "^flow:" then
      report(step, ("next_steps lists '%s', but %s"):format(target, step.branches
        and "no outcome of conditional_logic leads there"
        or "without conditional_logic only the first is taken"), "targets", "warning")
    end
  end
end

---@param names tidemill.Names
---@param report fun(step: tidemill.Step, text: string, rule: string, level: string?)
function M.check(names, report)
  for _, id in ipairs(names.flow.step_order) do
    local step = names.flow.steps[id]
    check_condition(names, step, report)
    check_gate(names.flow, step, report)
    if step.branches then
      local values = outcomes_of(names, step)
      if values then check_keys(step, values, report) end
      check_covered(step, values, report)
    end
    check_successors(names.flow, step, report)
  end
end

return M
