--- INFORMATION_GATHERING: questions whose answers are kept by name, one by one or as one form,
--- shown to the user, who may change them, and then given to whoever needs them.
local builder = require "tidemill.pattern.builder"
local paths = require "tidemill.check.paths"

local M = {}

M.fields = builder.fields {
  questions = { type = "list", required = true }, together = { type = "string" },
  confirm = { type = "string" }, change = { type = "string" }, run = { type = "function" },
  agent = { type = "any" }, instruction = { type = "string" }, response = { type = "string" },
}

local CHANGE = "Which answer is to be changed?"

local function ask_each(given, flow, following)
  for i, question in ipairs(given.questions) do
    local behind = given.questions[i + 1]
    flow:ask("ask_" .. question.name, question,
      { next_steps = { behind and "ask_" .. behind.name or following } })
  end
end

local function ask_together(given, flow, following)
  local names = {}
  for i, question in ipairs(given.questions) do names[i] = question.name end
  flow:step { step_id = "ask", step_type = "user_input", prompt = given.together,
    input_schema = { type = "structured", fields = given.questions },
    metadata = { data_collection = names, allows_partial_completion = true },
    next_steps = { following } }
end

--- Which of the answers is to be changed, when there are several questions.
local function add_change(given, flow)
  local options, targets, logic = {}, {}, { condition = "changing" }
  for i, question in ipairs(given.questions) do
    options[i] = { label = (question.name:gsub("_", " ")), value = question.name }
    targets[i] = "change_" .. question.name
    logic[question.name] = targets[i]
  end
  flow:step { step_id = "change", step_type = "user_input", prompt = given.change or CHANGE,
    input_schema = { type = "choice", options = options, required = true }, save_as = "changing",
    conditional_logic = logic, next_steps = targets }
  for i, question in ipairs(given.questions) do
    flow:ask(targets[i], question, { next_steps = { "confirm" } })
  end
end

local function add_confirm(given, flow, following)
  local first, several = given.questions[1], #given.questions > 1
  local wrong = given.together and "ask" or several and "change" or "ask_" .. first.name
  flow:step { step_id = "confirm", step_type = "user_input", prompt = given.confirm,
    input_schema = { type = "boolean", required = true }, save_as = "confirmed",
    conditional_logic = { condition = "confirmed", [true] = following, [false] = wrong },
    next_steps = { following, wrong } }
  if wrong == "change" then add_change(given, flow) end
end

--- Names that are no outcomes: conditional_logic has fields of these names.
local RESERVED = { condition = true, classify = true, default = true }

--- What the steps behind the questions keep.
local function taken_by(given)
  local changes = given.confirm and not given.together and #given.questions > 1
  return { confirmed = given.confirm and true, changing = changes or nil,
    result = given.run and true }
end

local function is_sound(given, flow)
  local function wrong(text) flow.report("information_gathering: " .. text, "fields") end
  local ok = flow:check_questions(given.questions, "questions", taken_by(given))
  for i, question in ipairs(ok and given.questions or {}) do
    if RESERVED[question.name] and given.confirm and not given.together then
      wrong(("questions[%d]: 'name' = '%s' is a word of conditional_logic; take another")
        :format(i, question.name))
    end
  end
  if given.change and (not given.confirm or given.together) then
    wrong("'change' is asked after 'confirm' only, and not with 'together'")
  end
  if (given.response or given.instruction) and given.agent == nil then
    wrong("'agent' is missing: who says the 'response'")
  end
  return #flow.problems == 0
end

---@param given table
---@param flow tidemill.Builder
function M.build(given, flow)
  if not is_sound(given, flow) then return end
  local thanks = given.agent ~= nil and "thanks" or "end"
  local onward = given.run and "hand_over" or thanks
  local following = given.confirm and "confirm" or onward
  local ask = given.together and ask_together or ask_each
  ask(given, flow, following)
  if given.confirm then add_confirm(given, flow, onward) end
  if given.run then
    flow:step { step_id = "hand_over", step_type = "action", run = given.run, save_as = "result",
      next_steps = { thanks } }
  end
  if given.agent ~= nil then flow:say("thanks", given, { next_steps = { "end" } }) end
end

---@param flow tidemill.Flow
---@param report fun(step: tidemill.Step?, text: string)
function M.check(flow, report)
  local keeping = {}
  for _, id in ipairs(flow.step_order) do
    local step = flow.steps[id]
    local asks = step.step_type == "user_input"
    if asks and #step.writes > 0 then
      keeping[id] = true
    elseif asks and not step.branches then
      report(step, "asks, but keeps the answer under no name; name it by save_as or "
        .. "metadata.data_collection")
    end
  end
  if next(keeping) == nil then
    return report(nil, "there is no user_input that keeps its answer: nothing is gathered")
  end
  local _, ends = paths.reach(flow, flow.start_step, function(id) return keeping[id] end)
  if ends then
    report(nil, "a way leads to an end past every user_input that keeps its answer: the flow can "
      .. "be complete without having gathered anything")
  end
end

return M
