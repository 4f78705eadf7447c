--- The patterns of conversations: of each a builder, which makes a flow of ordinary steps of what a
--- script gives it, and the shape that `check` verifies, whoever wrote the flow.
---
--- A module under pattern/ has `fields`, `build(given, flow)` and `check(flow, report)`. It knows
--- steps and the ways between them, nothing of how they run.
local fault = require "tidemill.fault"
local schema = require "tidemill.schema"

local M = {}

local NAMES = { "step_by_step_process", "simple_chat", "information_gathering", "decision_tree",
  "approval_workflow", "multi_agent_collaboration", "database_interaction" }

--- Most systems need none of them: the modules take memory in those only that do.
local function pattern_of(name)
  return require("tidemill.pattern." .. name)
end

local function builder_of(name)
  return function(given)
    if type(given) ~= "table" then
      fault.misuse(("%s needs a table: pattern.%s { … }"):format(name, name))
    end
    local pattern = pattern_of(name)
    local flow = require("tidemill.pattern.builder").new(name, given)
    if schema.check(pattern.fields, given, name, flow.report) then pattern.build(given, flow) end
    return flow:made()
  end
end

---@type table<string, fun(given: table): tm.Flow> what scripts call, by name
M.builders = {}
for _, name in ipairs(NAMES) do M.builders[name] = builder_of(name) end

---Reports how a flow differs from the pattern that it names.
---@param flow tidemill.Flow
---@param report fun(step: tidemill.Step?, text: string)
---@param system tidemill.System
function M.check(flow, report, system)
  pattern_of(flow.pattern).check(flow, report, system)
end

---The fields of a builder, for the manual's test.
---@param name string
---@return table<string, tidemill.Field>
function M.fields(name)
  return pattern_of(name).fields
end

return M
