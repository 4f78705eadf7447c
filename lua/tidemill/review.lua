--- `review`: another agent looks at a step's reply before anybody sees it. What it answers is a
--- verdict in one of two shapes, or it is none: then the reply does not pass either. What does not
--- pass fails the attempt, so that nothing of it is kept; the next attempt gets the reason.
local agents = require "tidemill.agent"
local crypto = require "host.crypto"
local fault = require "tidemill.fault"
local fields = require "tidemill.fields"
local json = require "host.json"
local offline = require "tidemill.provider.offline"
local origin = require "tidemill.origin"
local schema = require "tidemill.schema"
local template = require "tidemill.template"
local text = require "host.text"

local M = {}

local OUTCOMES = { pass = "pass", reject = "reject" }
local VERDICT = { verdict = true, reason = true }
local VERDICT_BYTES, VERDICT_VALUES = 16384, 16
local REASON_CHARACTERS, REPLY_CHARACTERS = 600, 2000

---@class tidemill.Review
---@field agent string
---@field outcome any? what it chooses without a model
---@field response tidemill.Template? the reason that it then gives

---- what a step says ----

local function is_agent(given, known)
  return type(given) ~= "table" or known.by_value[given] ~= nil or origin.kind(given) ~= nil
    or type(given.respond) == "function"
end

local function compile_offline(given, report)
  local plan = {}
  if given.outcome ~= nil then
    plan.outcome = offline.compile_outcome(given.outcome, OUTCOMES, false, report,
      "review: pass and reject")
  end
  if given.response then
    local problem
    plan.response, problem = template.compile(given.response)
    if problem then report("'response of review': " .. problem, "templates") end
  end
  return plan
end

---Compiles a step's `review`: an agent, or { agent, outcome, response }.
---@param step tidemill.Step
---@param given any
---@param known table the system's agents
---@param find fun(given: any, field: string): string?
---@param report fun(text: string, rule: string)
---@return tidemill.Review?
function M.compile(step, given, known, find, report)
  if is_agent(given, known) then given = { agent = given } end
  if not schema.check(fields.review, given, "review", report) then return nil end
  local plan = compile_offline(given, report)
  plan.agent = find(given.agent, "review")
  local agent = plan.agent and known.by_name[plan.agent]
  if plan.agent and plan.agent == step.agent then
    report(("review: '%s' is the step's own agent; let another one look at what it says")
      :format(plan.agent), "agents")
  end
  if agent and agent.respond and (given.outcome ~= nil or given.response) then
    report(("review: 'outcome' and 'response' are what an offline agent answers; '%s' answers "
      .. "itself, by its respond"):format(plan.agent), "agents")
  end
  return plan.agent and plan
end

---- what the reviewer says ----

local function reason_of(given, otherwise)
  if type(given) ~= "string" or given == "" then return otherwise end
  return fault.printable(given, REASON_CHARACTERS)
end

--- {"verdict": "pass"} or {"verdict": "reject", "reason": "…"}, and nothing else: what a model
--- answers.
local function written(said)
  if type(said) ~= "string" or #said > VERDICT_BYTES or not text.valid(said) then return nil end
  local value = json.decode(said, VERDICT_VALUES)
  if type(value) ~= "table" or json.is_array(value) then return nil end
  for name in pairs(value) do
    if not VERDICT[name] then return nil end
  end
  if value.reason ~= nil and type(value.reason) ~= "string" then return nil end
  return value.verdict, value.reason
end

---A verdict in whichever shape; an answer that is none lets nothing pass.
---@param answer any
---@return boolean passed
---@return string? reason
function M.verdict(answer)
  local verdict, reason
  if type(answer) == "table" and answer.outcome ~= nil then
    verdict, reason = answer.outcome, answer.text
  elseif type(answer) == "table" then
    verdict, reason = written(answer.text)
  else
    verdict, reason = written(answer)
  end
  if verdict == "pass" then return true end
  if verdict == "reject" then return false, reason_of(reason, "it gave no reason") end
  return false, "what it answered is no verdict"
end

--- What it keeps by ctx:once is about this reply and no other (see once.lua).
local function ask(run, step, said)
  run.reviewing = crypto.digest(said, 32)
  local answer = agents.review(run, step, said)
  run.reviewing = nil
  return answer
end

---Raises unless the reply passes.
---@param run tidemill.Run
---@param step tidemill.Step
---@param said string
function M.run(run, step, said)
  local reviewer = step.review.agent
  local passed, reason = M.verdict(ask(run, step, said))
  run.review = { agent = reviewer, verdict = passed and "pass" or "reject", reason = reason }
  if passed then return end
  run.runtime.rejected = { reply = fault.printable(said, REPLY_CHARACTERS), reason = reason }
  error(fault.new("review.rejected", ("the agent '%s' did not let the reply of the step '%s' pass; "
    .. "the record of the step says why"):format(reviewer, step.step_id)), 0)
end

return M
