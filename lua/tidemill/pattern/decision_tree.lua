--- DECISION_TREE: questions and conditions, each answer of which leads to another one or to a leaf,
--- where the flow is complete: something that is said, done, or left to another flow.
local builder = require "tidemill.pattern.builder"
local definition = require "tidemill.definition"
local paths = require "tidemill.check.paths"
local schema = require "tidemill.schema"

local M = {}

M.fields = builder.fields {
  tree = { type = "table", required = true }, agent = { type = "any" },
}

--- One node of the tree; it is what its kind says, the field that it must have.
M.node_fields = {
  id = { type = "string" }, ask = { type = "string", kinds = { ask = true } },
  options = { type = "list", kinds = { ask = true }, required = true },
  condition = { type = "condition", kinds = { condition = true } },
  outcomes = { type = "table", kinds = { condition = true }, required = true },
  otherwise = { type = "table", kinds = { ask = true, condition = true } },
  say = { type = "string", kinds = { say = true } },
  instruction = { type = "string", kinds = { say = true } },
  agent = { type = "any", kinds = { say = true } },
  run = { type = "function", kinds = { run = true } },
  flow = { type = "string", kinds = { flow = true } },
}

--- One answer to a question.
M.option_fields = {
  label = { type = "string", required = true }, value = { type = "option" },
  leads_to = { type = "table", required = true },
}

local KINDS = { "ask", "condition", "say", "run", "flow" }
local DEEPEST, MOST = 50, 2000

--- What conditional_logic would take for its own fields, or for an answer in the user's own words.
local RESERVED = { condition = true, classify = true, default = true, custom = true }

local add_node

local function wrong(flow, where, text)
  flow.report(("decision_tree: %s %s"):format(where, text), "fields")
end

--- The node below, as a target; adds it to the successors of the node above.
local function lead(flow, place, below, where, name)
  local target = add_node(flow, below, { where = place.where .. where,
    id = ("%s_%s"):format(place.id, name), depth = place.depth + 1 })
  place.following[#place.following + 1] = target
  return target
end

local function option_of(flow, given, where)
  if not flow:check(M.option_fields, given, where) then return nil end
  local value = given.value == nil and given.label or given.value
  if RESERVED[value] then
    return wrong(flow, where, ("'value' = '%s' is a word of conditional_logic; take another")
      :format(value))
  end
  return { label = given.label, value = value }
end

local function question(flow, node, place)
  local options, logic = {}, { condition = place.id }
  for i, given in ipairs(node.options) do
    local where = (".options[%d]"):format(i)
    local option = option_of(flow, given, place.where .. where)
    if option then
      options[#options + 1] = option
      logic[option.value] = lead(flow, place, given.leads_to, where .. ".leads_to", i)
    end
  end
  if node.otherwise then
    logic.default = lead(flow, place, node.otherwise, ".otherwise", "otherwise")
  end
  if #node.options == 0 then wrong(flow, place.where, "has no 'options'") end
  return { step_type = "user_input", prompt = node.ask, save_as = place.id,
    input_schema = { type = "choice", options = options, required = true,
      allow_custom_response = node.otherwise ~= nil }, conditional_logic = logic }
end

local function condition(flow, node, place)
  local logic = {}
  for i, outcome in ipairs(schema.sorted_keys(node.outcomes)) do
    local where = (".outcomes.%s"):format(outcome)
    if RESERVED[outcome] then
      wrong(flow, place.where .. where, "is a word of conditional_logic; use 'otherwise', or take "
        .. "another")
    else
      logic[outcome] = lead(flow, place, node.outcomes[outcome], where, i)
    end
  end
  if node.otherwise then
    logic.default = lead(flow, place, node.otherwise, ".otherwise", "otherwise")
  end
  return { step_type = "decision", condition = node.condition, conditional_logic = logic }
end

local function leaf(flow, node, place)
  place.following[1] = "end"
  if node.run then return { step_type = "action", run = node.run, save_as = "result" } end
  if node.flow then return { step_type = "subflow", flow = node.flow } end
  local agent = node.agent == nil and flow.given.agent or node.agent
  if agent == nil then wrong(flow, place.where, "needs an 'agent', its own or the tree's") end
  return { step_type = "agent_response", agent = agent, prompt = node.instruction,
    response = node.say }
end

local MAKERS = { ask = question, condition = condition, say = leaf, run = leaf, flow = leaf }

--- Which of the fields that say what a node is it has.
local function kind_of(flow, node, where)
  local kind
  for _, name in ipairs(KINDS) do
    if type(node) == "table" and rawget(node, name) ~= nil then
      if kind then return wrong(flow, where, ("has '%s' and '%s'; give one"):format(kind, name)) end
      kind = name
    end
  end
  if kind then return kind end
  wrong(flow, where, "must be a node: a table with one of " .. table.concat(KINDS, ", "))
end

local function id_of(flow, node, place)
  local id = node.id or place.id
  if definition.is_state_name(id) then return id end
  wrong(flow, place.where, ("'id' = '%s' is no name of letters, digits and _, at most 64; give the "
    .. "node one"):format(id))
end

--- Adds the step of a node and those of all below it; returns its id.
---@param flow tidemill.Builder
---@param node any
---@param place { where: string, id: string, depth: integer }
---@return string id
function add_node(flow, node, place)
  if place.depth > DEEPEST or #flow.steps >= MOST then
    if #flow.problems == 0 then
      wrong(flow, "tree", ("has more than %d nodes, or is deeper than %d"):format(MOST, DEEPEST))
    end
    return "end"
  end
  local kind = kind_of(flow, node, place.where)
  if not kind then return "end" end
  local known = ("decision_tree: %s"):format(place.where)
  if not schema.check(M.node_fields, node, known, flow.report, kind) then return "end" end
  place.id, place.following = id_of(flow, node, place), {}
  if not place.id then return "end" end
  local at = #flow.steps + 1
  flow:step { step_id = place.id }
  local step = flow.steps[at]
  for name, value in pairs(MAKERS[kind](flow, node, place)) do step[name] = value end
  step.next_steps = place.following
  return place.id
end

---@param given table
---@param flow tidemill.Builder
function M.build(given, flow)
  add_node(flow, given.tree, { where = "tree", id = "tree", depth = 1 })
end

--- Where a step that chooses can lead to, without what happens when it fails.
local function ways(step)
  local seen, count = {}, 0
  for _, target in ipairs(paths.targets(step)) do
    if not seen[target] then seen[target], count = true, count + 1 end
  end
  return count
end

---@param flow tidemill.Flow
---@param report fun(step: tidemill.Step?, text: string)
function M.check(flow, report)
  local choosing = 0
  for _, id in ipairs(flow.step_order) do
    local step = flow.steps[id]
    local chooses = step.branches ~= nil or step.condition ~= nil
    if chooses then choosing = choosing + 1 end
    if chooses and ways(step) < 2 then
      report(step, "leads to the same whatever its outcome; let it lead to different steps")
    end
    if paths.on_cycle(flow, id) then
      return report(step, "leads back to itself: a tree goes on to its leaves only")
    end
  end
  if choosing == 0 then
    report(nil, "no step chooses: there is no decision with conditional_logic, and no question "
      .. "either")
  end
end

return M
