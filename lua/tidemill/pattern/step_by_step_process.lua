--- STEP_BY_STEP_PROCESS: one step after the other; what branches says so itself. Every flow has
--- this shape whose steps are reached and lead to an end, which `check` sees for all of them.
local builder = require "tidemill.pattern.builder"
local origin = require "tidemill.origin"

local M = {}

M.fields = builder.fields { steps = { type = "list", required = true } }

--- Where a step goes that chooses, it says itself.
local function is_open(step)
  return type(step) == "table" and step.next_steps == nil and step.conditional_logic == nil
    and step.condition == nil
end

--- The script may use its own in another flow as well.
local function going_on(step, following, flow)
  local copied = {}
  for name, value in pairs(step) do copied[name] = value end
  copied.next_steps = { type(following) == "table" and following.step_id or "end" }
  origin.built("ConversationStep", copied, origin.source(step, flow.source))
  return copied
end

---A step without next_steps goes on to the one behind it.
---@param given table
---@param flow tidemill.Builder
function M.build(given, flow)
  local first = given.steps[1]
  if type(first) ~= "table" or type(first.step_id) ~= "string" then
    return flow.report("step_by_step_process: 'steps' must be a list of ConversationStep { … }, "
      .. "at least one", "fields")
  end
  for i, step in ipairs(given.steps) do
    flow.steps[i] = is_open(step) and going_on(step, given.steps[i + 1], flow) or step
  end
end

function M.check() end

return M
