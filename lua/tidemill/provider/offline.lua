--- The provider without a network: a step's `response` template is what its agent says, and its
--- `outcome` is what its agent chooses.
---
--- `outcome` is a text, a function(ctx), or a list of rules of which the first that matches counts:
---   outcome = { { contains = { "refund", "broken" }, outcome = "complaint" },
---               { from = "details", longer_than = 80, outcome = "complex" }, default = "simple" }
--- A rule looks at the user's input of this turn, or at the name in `from`.
local context = require "tidemill.context"
local fault = require "tidemill.fault"
local fields = require "tidemill.fields"
local schema = require "tidemill.schema"
local template = require "tidemill.template"
local text = require "host.text"

local M = {}

local CRITERIA = { "contains", "equals", "matches", "longer_than" }

local function lower_words(contains, where, report)
  local words = {}
  for i, word in ipairs(type(contains) == "table" and contains or { contains }) do
    if type(word) ~= "string" or not text.valid(word) then
      return report(where .. ": 'contains' must be a text or a list of texts", "fields")
    end
    words[i] = text.lower(word)
  end
  return words
end

local function compile_rule(rule, i, declared, report)
  local where = ("outcome, rule %d"):format(i)
  if type(rule) ~= "table" then return report(where .. ": must be a table", "fields") end
  if not schema.check(fields.outcome, rule, where, report) then return end
  declared(rule.outcome, where)
  local compiled = { outcome = rule.outcome, matches = rule.matches,
    longer_than = rule.longer_than, equals = rule.equals and text.lower(rule.equals) }
  if rule.contains ~= nil then compiled.contains = lower_words(rule.contains, where, report) end
  if rule.from then
    compiled.from = template.path(rule.from)
    if not compiled.from then report(where .. ": 'from' is no name", "fields") end
  end
  local criteria = 0
  for _, name in ipairs(CRITERIA) do
    if rule[name] ~= nil then criteria = criteria + 1 end
  end
  if criteria == 0 then
    report(where .. ": needs contains, equals, matches or longer_than", "fields")
  end
  if rule.matches and not pcall(string.find, "", rule.matches) then
    report(("%s: 'matches' is no Lua pattern: %s"):format(where, rule.matches), "fields")
  end
  return compiled
end

---Compiles a step's `outcome`; everything wrong is reported.
---@param outcome any as given
---@param branches table<string, string> the declared outcomes
---@param has_default boolean
---@param report fun(text: string, rule: string)
---@param owner string? whose outcomes they are
---@return any plan
function M.compile_outcome(outcome, branches, has_default, report, owner)
  local function declared(name, where)
    if type(name) ~= "string" or not branches[name] and not has_default then
      report(("%s: '%s' is not among the outcomes of %s%s"):format(where, tostring(name),
        owner or "conditional_logic", schema.hint(tostring(name), branches)), "fields")
    end
  end
  if type(outcome) == "function" then return outcome end
  if type(outcome) ~= "table" then
    declared(outcome, "outcome")
    return { default = outcome }
  end
  local plan = { default = outcome.default }
  if plan.default ~= nil then declared(plan.default, "outcome, default") end
  for _, key in ipairs(schema.sorted_keys(outcome)) do
    if key ~= "default" then report(("outcome: unknown field '%s'"):format(key), "fields") end
  end
  for i, rule in ipairs(outcome) do plan[i] = compile_rule(rule, i, declared, report) end
  return plan
end

local function contains_one(subject, words)
  for _, word in ipairs(words) do
    if subject:find(word, 1, true) then return true end
  end
  return false
end

--- All criteria of a rule must hold.
local function rule_matches(rule, subject)
  local lower = text.lower(subject)
  if rule.contains and not contains_one(lower, rule.contains) then return false end
  if rule.equals and text.trim(lower) ~= rule.equals then return false end
  if rule.longer_than and text.length(subject) <= rule.longer_than then return false end
  return not rule.matches or text.match(subject, rule.matches) == true
end

local function subject_of(rule, run, value)
  if rule.from then
    value = template.lookup(rule.from, run)
  elseif run.reads then
    run.reads.input = true
  end
  return value ~= nil and template.display(value) or ""
end

--- The rules look at `value`; a function gets `output`.
local function choose(plan, run, step, value, output)
  if type(plan) == "function" then
    local ctx = context.reader(run, step, "an outcome function")
    rawset(ctx, "output", output)
    return plan(ctx)
  end
  for _, rule in ipairs(plan) do
    if rule_matches(rule, subject_of(rule, run, value)) then return rule.outcome end
  end
  return plan.default
end

--- A step without `response` says plainly that there is nothing to say: the prompt is written for a
--- model, not for users.
local function fallback(agent, step)
  return ("[offline] %s has no response for the step '%s'."):format(agent.name, step.step_id)
end

---The prompt is rendered although nobody reads it: what is wrong with it shows without a network.
---@param run tidemill.Run
---@param step tidemill.Step
---@param agent tidemill.Agent
---@return tm.Reply
function M.respond(run, step, agent)
  local said
  if step.prompt then template.render(step.prompt, run) end
  if step.step_type == "agent_response" then
    said = step.response and template.render(step.response, run) or fallback(agent, step)
  end
  local outcome
  if step.outcome_plan then
    outcome = choose(step.outcome_plan, run, step, run.input)
    if outcome ~= nil and type(outcome) ~= "string" then
      fault.stop("agent.outcome", "the outcome function must return the name of an outcome")
    end
  end
  return { text = said, outcome = outcome }
end

---What it says of a reply: without `outcome` nothing, and that is no verdict.
---@param run tidemill.Run
---@param step tidemill.Step
---@param said string the reply
---@return tm.Reply
function M.review(run, step, said)
  local plan = step.review
  return { outcome = plan.outcome and choose(plan.outcome, run, step, said, said),
    text = plan.response and template.render(plan.response, run) }
end

return M
