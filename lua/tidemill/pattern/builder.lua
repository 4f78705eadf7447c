--- What the builders of patterns share: the flow that is being made, the steps that say something
--- or ask for something, and the list of what was given wrong. A wrong builder makes no steps; its
--- flow carries the problems until the system is compiled.
local definition = require "tidemill.definition"
local fields = require "tidemill.fields"
local origin = require "tidemill.origin"
local phrases = require "tidemill.phrases"
local schema = require "tidemill.schema"

local M = {}

---@class tidemill.Builder
---@field name string of the pattern
---@field given table
---@field source tidemill.Source where the builder was called
---@field steps tm.Step[]
---@field problems { text: string, rule: string }[]
---@field report fun(text: string, rule: string)
local Builder = {}
Builder.__index = Builder

--- What only a builder writes.
local OWN = { pattern = true, steps = true, start_step = true, end_steps = true }

---The fields of a builder: those of every flow, and its own.
---@param own table<string, tidemill.Field>
---@return table<string, tidemill.Field>
function M.fields(own)
  local all = {}
  for name, field in pairs(fields.flow) do
    if not OWN[name] then all[name] = field end
  end
  for name, field in pairs(own) do all[name] = field end
  return all
end

---@param name string
---@param given table
---@return tidemill.Builder
function M.new(name, given)
  local flow = setmetatable({ name = name, given = given, source = origin.here(name), steps = {},
    problems = {} }, Builder)
  function flow.report(text, rule)
    flow.problems[#flow.problems + 1] = { text = text, rule = rule }
  end
  return flow
end

---Adds a step to the flow, or to a branch.
---@param step tm.Step
---@param steps tm.Step[]? of the branch
function Builder:step(step, steps)
  origin.built("ConversationStep", step, self.source)
  steps = steps or self.steps
  steps[#steps + 1] = step
end

---Checks a table that stands inside of what was given.
---@param known table<string, tidemill.Field>
---@param value any
---@param where string "fields[2]"
---@return boolean ok
function Builder:check(known, value, where)
  where = ("%s: %s"):format(self.name, where)
  if type(value) ~= "table" then
    self.report(where .. " must be a table", "fields")
    return false
  end
  return schema.check(known, value, where, self.report)
end

--- What an agent is told, and says without a model.
M.speech = {
  agent = { type = "any" }, instruction = { type = "string" }, response = { type = "string" },
}

---Adds a step in which an agent speaks.
---@param id string
---@param speech { agent: tm.Agent|string, instruction: string?, response: string? }
---@param more table further fields of the step
---@param steps tm.Step[]? of the branch
function Builder:say(id, speech, more, steps)
  local step = { step_id = id, step_type = "agent_response", agent = speech.agent,
    prompt = speech.instruction, response = speech.response }
  for name, value in pairs(more) do step[name] = value end
  self:step(step, steps)
end

local STOP = { "bye", "goodbye" }

---A condition: is the whole answer one of the words that end it, "stop", or not, "go_on"?
---@param words string[]? "bye" and "goodbye" when absent
---@return fun(ctx: tm.Context): string
function M.stops_at(words)
  local known = {}
  for _, word in ipairs(words or STOP) do known[phrases.normalized(word)] = true end
  return function(ctx)
    return known[phrases.normalized(ctx.output)] and "stop" or "go_on"
  end
end

---- questions, one by one ----

local function question_fields()
  local known = {}
  for name, field in pairs(fields.field) do known[name] = { type = "any", unsupported =
    field.unsupported } end
  known.name = { type = "string", required = true }
  known.prompt = { type = "string", required = true }
  return known
end

local QUESTION = question_fields()

local function name_problem(name, seen, taken)
  if not definition.is_state_name(name) then return "is no name of letters, digits and _" end
  if seen[name] then return "is there twice" end
  return taken and taken[name] and "is taken: the flow keeps something else under it" or nil
end

---Are they questions that can be asked one by one? What is wrong with one is reported.
---@param list table[]
---@param where string the field that holds them
---@param taken table<string, true>? names under which the builder's own steps keep something
---@return boolean ok
function Builder:check_questions(list, where, taken)
  local ok, seen = #list > 0, {}
  if not ok then
    self.report(("%s: '%s' must name at least one question"):format(self.name, where), "fields")
  end
  for i, question in ipairs(list) do
    local at = ("%s[%d]"):format(where, i)
    local sound = self:check(QUESTION, question, at)
    local problem = sound and name_problem(question.name, seen, taken)
    if problem then
      self.report(("%s: %s: 'name' = '%s' %s"):format(self.name, at, question.name, problem),
        "fields")
    end
    if sound then seen[question.name] = true end
    ok = ok and sound and not problem
  end
  return ok
end

---Adds a step that asks; the answer is saved under the question's name.
---@param id string
---@param question table
---@param more table further fields of the step
function Builder:ask(id, question, more)
  local asked = {}
  for name, value in pairs(question) do
    if name ~= "name" and name ~= "prompt" then asked[name] = value end
  end
  local step = { step_id = id, step_type = "user_input",
    prompt = question.prompt, input_schema = asked, save_as = question.name }
  for name, value in pairs(more) do step[name] = value end
  self:step(step)
end

---The flow: without steps when anything was wrong.
---@return tm.Flow
function Builder:made()
  local flow = {}
  for name in pairs(fields.flow) do
    if not OWN[name] then flow[name] = rawget(self.given, name) end
  end
  local first = self.steps[1]
  flow.pattern, flow.steps = self.name, self.steps
  flow.start_step = self.start_step or type(first) == "table" and first.step_id or nil
  flow.end_steps = self.end_steps
  origin.built("ConversationFlow", flow, self.source, self.problems)
  return flow
end

return M
