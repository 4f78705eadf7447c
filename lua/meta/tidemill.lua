---@meta tidemill
--- What a script may write and call: `local tm = require "tidemill"`. Every name here works; what
--- the guide names beyond it is refused at load as "not supported yet", and an unknown name is an
--- error that suggests the nearest known one. Durations are seconds, or texts such as "30m" (ms, s,
--- m, h, d).
-- luacheck: ignore 212 241
local tm = {}

---@alias tm.Duration number|string

---@class tm.System
---@field name? string the folder's name; a system is named by its folder
---@field description? string
---@field agents table<string, tm.Agent>
---@field flows? tm.Flow[] with those that are registered with the orchestrator at least one
---@field orchestrator? tm.Orchestrator
--- plain values; scripts see it as ctx.config, templates as {name} or {config.name}
---@field config? table

---What init.lua returns.
---@param system tm.System
---@return tm.System
function tm.system(system) end

-- Agents

--- An agent of a model. Without a model (`offline`) it says what a step's `response` says, and
--- chooses by the step's `outcome`. A step without `response` is then answered by
--- "[offline] NAME has no response for the step 'STEP'.": its prompt is written for a model and is
--- never shown to users. The prompt is rendered all the same, so that its mistakes show.
---@class tm.AssistantAgent
---@field user_id string
---@field system_message? string
---@field provider? "offline"

--- An agent of your own: any table with `respond`, and whatever else it needs.
---@class tm.CustomAgent
---@field user_id? string its name in `agents` when absent
--- returns its text, or { text = …, outcome = … }, or nil and an error, which fails the step
---@field respond fun(ctx: tm.Context, request: tm.Request): (string|tm.Reply|nil), any

--- A function makes the agent: at start, or where lazy_load_agents says so, when it is needed
--- first; once on each worker.
---@alias tm.Agent tm.AssistantAgent|tm.CustomAgent|fun(): tm.CustomAgent?, any

---@class tm.Request what an agent is asked
---@field prompt string the step's prompt, rendered
---@field input any what the user said in this turn
---@field outcomes string[]? with classify: the outcomes to choose from; of a review: pass, reject
---@field rejected { reply: string, reason: string }? what a review did not let pass before
--- what another agent wants to say: to be answered by { outcome = "pass" }, by
--- { outcome = "reject", text = reason }, or by a text that is the JSON of { verdict, reason }
---@field reply string?
---@field transcript tm.Said[]? with conversation_summary: what was said, oldest first

---@class tm.Said one message
--- `note`: the beginning was left out, for at most 500 messages and 256 KiB are given
---@field role "user"|"agent"|"prompt"|"note"
---@field text string
---@field agent string? who spoke
---@field step_id string? the step that spoke or asked

---@class tm.Reply
---@field text string?
---@field outcome string? with classify, or of a review: the outcome it chose

---@overload fun(agent: tm.AssistantAgent): tm.AssistantAgent
---@class tm.AssistantAgentConstructor
tm.AssistantAgent = {}

---The same as AssistantAgent { … }.
---@param agent tm.AssistantAgent
---@return tm.AssistantAgent
function tm.AssistantAgent.create_simple(agent) end

--- Known, and refused at load as not supported yet.
---@class tm.DatabaseAgentConstructor
tm.DatabaseAgent = {}

-- Flows and steps; their fields stand in lua/meta/tidemill/

---@param flow tm.Flow
---@return tm.Flow
function tm.ConversationFlow(flow) end

---@param orchestrator tm.Orchestrator
---@return tm.MadeOrchestrator
function tm.ConversationOrchestrator(orchestrator) end

---@param step tm.Step
---@return tm.Step
function tm.ConversationStep(step) end

tm.ConversationPattern = {
  STEP_BY_STEP_PROCESS = "step_by_step_process",
  SIMPLE_CHAT = "simple_chat",
  INFORMATION_GATHERING = "information_gathering",
  DECISION_TREE = "decision_tree",
  APPROVAL_WORKFLOW = "approval_workflow",
  MULTI_AGENT_COLLABORATION = "multi_agent_collaboration",
  DATABASE_INTERACTION = "database_interaction",
}

--- Builders: each makes a flow of ordinary steps. What is wrong is found at the line of the call.
---@class tm.Builders
---@field step_by_step_process fun(given: tm.StepByStepProcess): tm.Flow
---@field database_interaction fun(given: tm.DatabaseInteraction): tm.Flow
---@field simple_chat fun(given: tm.SimpleChat): tm.Flow
---@field information_gathering fun(given: tm.InformationGathering): tm.Flow
---@field decision_tree fun(given: tm.DecisionTree): tm.Flow
---@field approval_workflow fun(given: tm.ApprovalWorkflow): tm.Flow
---@field multi_agent_collaboration fun(given: tm.MultiAgentCollaboration): tm.Flow
tm.pattern = {}

-- Values

---Marks a table as a list, so that it stays one when it is empty.
---@param t? table
---@return table
function tm.array(t) end

--- JSON's null; not nil, and true in a condition: compare with `==`.
---@type userdata
tm.null = nil

return tm
