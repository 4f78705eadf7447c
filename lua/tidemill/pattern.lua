--- The patterns of conversations: of each a builder, which makes a flow of ordinary steps of what a
--- script gives it, and the shape that `check` verifies, whoever wrote the flow.
---
--- A module under pattern/ has `fields`, `build(given, flow)` and `check(flow, report)`. It knows
--- steps and the ways between them, nothing of how they run.
local builder = require "tidemill.pattern.builder"
local fault = require "tidemill.fault"
local schema = require "tidemill.schema"

local M = {}

local PATTERNS = {
  step_by_step_process = require "tidemill.pattern.step_by_step_process",
  simple_chat = require "tidemill.pattern.simple_chat",
  information_gathering = require "tidemill.pattern.information_gathering",
  decision_tree = require "tidemill.pattern.decision_tree",
  approval_workflow = require "tidemill.pattern.approval_workflow",
  multi_agent_collaboration = require "tidemill.pattern.multi_agent_collaboration",
}

local function build(name, pattern)
  return function(given)
    if type(given) ~= "table" then
      fault.misuse(("%s needs a table: pattern.%s { … }"):format(name, name))
    end
    local flow = builder.new(name, given)
    if schema.check(pattern.fields, given, name, flow.report) then pattern.build(given, flow) end
    return flow:made()
  end
end

---@type table<string, fun(given: table): tm.Flow> what scripts call, by name
M.builders = {}
for name, pattern in pairs(PATTERNS) do M.builders[name] = build(name, pattern) end

---Reports how a flow differs from the pattern that it names.
---@param flow tidemill.Flow
---@param report fun(step: tidemill.Step?, text: string)
function M.check(flow, report)
  PATTERNS[flow.pattern].check(flow, report)
end

---The fields of a builder, for the manual's test.
---@param name string
---@return table<string, tidemill.Field>
function M.fields(name)
  return PATTERNS[name].fields
end

return M
