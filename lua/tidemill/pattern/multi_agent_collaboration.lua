--- MULTI_AGENT_COLLABORATION: several agents work on one task: in turn, in rounds of a debate,
--- until they agree, or each on some parts of it. Whoever speaks beside others does so in a branch
--- of a parallel step. Each way of working is a module under collaboration/.
local builder = require "tidemill.pattern.builder"
local definition = require "tidemill.definition"
local flows = require "tidemill.flow"
local paths = require "tidemill.check.paths"
local schema = require "tidemill.schema"

local M = {}

local MODES = {
  sequential = require "tidemill.pattern.collaboration.sequential",
  debate = require "tidemill.pattern.collaboration.debate",
  consensus = require "tidemill.pattern.collaboration.consensus",
  map_reduce = require "tidemill.pattern.collaboration.map_reduce",
}

M.fields = builder.fields {
  mode = { type = "string", required = true,
    among = { "sequential", "debate", "consensus", "map_reduce" } },
  participants = { type = "list", required = true }, conclusion = { type = "table" },
  prompt = { type = "string" }, concurrency = { type = "integer", min = 1, max = 15 },
  rounds = { type = "integer", min = 1, max = 20 }, options = { type = "names" },
  agreement = { type = "any" }, split = { type = "function" },
}

--- Which modes have the fields that not all of them have.
local MODE_FIELDS = {
  concurrency = { debate = true, consensus = true, map_reduce = true },
  rounds = { debate = true, consensus = true },
  options = { consensus = true }, agreement = { consensus = true }, split = { map_reduce = true },
  conclusion = { debate = true, consensus = true, map_reduce = true },
}

--- One of those who take part.
M.participant_fields = {
  name = { type = "string", required = true }, agent = { type = "any", required = true },
  instruction = { type = "string" }, response = { type = "string" }, outcome = { type = "any" },
}

--- Who speaks last.
M.conclusion_fields = {
  agent = { type = "any", required = true }, instruction = { type = "string" },
  response = { type = "string" },
}

local function wrong(flow, text)
  flow.report("multi_agent_collaboration: " .. text, "fields")
end

--- Names of steps and of state that are not the participants'.
local TAKEN = { "task", "conclusion", "debate", "consensus", "split", "map", "parts", "part",
  "results", "taken", "done", "take", "keep", "give", "end" }

local function check_participants(given, flow)
  local seen = {}
  for _, name in ipairs(TAKEN) do seen[name] = true end
  for i, one in ipairs(given.participants) do
    local where = ("participants[%d]"):format(i)
    if flow:check(M.participant_fields, one, where) then
      if not definition.is_state_name(one.name) or seen[one.name] then
        wrong(flow, ("%s: 'name' = '%s' %s"):format(where, one.name, seen[one.name]
          and "is taken" or "is no name of letters, digits and _"))
      end
      if one.outcome ~= nil and given.mode ~= "consensus" then
        wrong(flow, where .. ": 'outcome' is a vote, which belongs to the mode 'consensus'")
      end
      seen[one.name] = true
    end
  end
  if #given.participants < 2 then wrong(flow, "'participants' must be at least two") end
end

local function is_sound(given, flow)
  local mode = MODES[given.mode]
  for _, name in ipairs(schema.sorted_keys(MODE_FIELDS)) do
    if given[name] ~= nil and not MODE_FIELDS[name][given.mode] then
      wrong(flow, ("'%s' does not belong to the mode '%s', only to %s"):format(name, given.mode,
        table.concat(schema.sorted_keys(MODE_FIELDS[name]), ", ")))
    end
  end
  for _, name in ipairs(mode.needs) do
    if given[name] == nil then
      wrong(flow, ("'%s' is missing, which the mode '%s' needs"):format(name, given.mode))
    end
  end
  check_participants(given, flow)
  if given.conclusion then flow:check(M.conclusion_fields, given.conclusion, "conclusion") end
  if mode.check then
    mode.check(given, function(text) wrong(flow, text) end)
  end
  return #flow.problems == 0
end

---@param given table
---@param flow tidemill.Builder
function M.build(given, flow)
  if not is_sound(given, flow) then return end
  if given.prompt then
    flow:step { step_id = "task", step_type = "user_input", prompt = given.prompt, save_as = "task",
      input_schema = { type = "text", required = true },
      next_steps = { MODES[given.mode].first(given) } }
  end
  MODES[given.mode].build(given, flow, given.conclusion and "conclusion" or "end")
  if given.conclusion then
    flow:say("conclusion", given.conclusion, { save_as = "conclusion", next_steps = { "end" } })
  end
end

---- the shape ----

local function speaker(step)
  return step.step_type == "agent_response" and step.agent or nil
end

--- Does another agent speak after this step?
local function is_followed(flow, step)
  for id in pairs(paths.reach(flow, step.step_id)) do
    local other = speaker(flow.steps[id])
    if other and other ~= step.agent then return true end
  end
  return false
end

---@param flow tidemill.Flow
---@param report fun(step: tidemill.Step?, text: string)
function M.check(flow, report)
  local agents, count = {}, 0
  for _, part in ipairs(flows.parts(flow)) do
    for _, step in pairs(part.steps) do
      if step.agent and not agents[step.agent] then agents[step.agent], count = true, count + 1 end
    end
  end
  if count < 2 then
    report(nil, ("%s: several agents have to take part"):format(count == 0
      and "no agent has a step" or "one agent alone has steps"))
  end
  for _, id in ipairs(flow.step_order) do
    local step = flow.steps[id]
    if step.step_type == "parallel" and not step.save_as then
      report(step, "keeps what its branches come to under no name; name it by save_as")
    elseif speaker(step) and #step.writes == 0 and is_followed(flow, step) then
      report(step, "is followed by another agent, who cannot know what was said: nothing keeps it; "
        .. "name it by save_as")
    end
  end
end

return M
