--- What a script gets from `require "tidemill"`. The constructors only note what was written and
--- where; everything is checked when the whole system is loaded (tidemill.system).
local json = require "host.json"
local origin = require "tidemill.origin"
local view = require "tidemill.view"

local LOCKED = "tidemill.%s cannot be set"

local M = {}

local function constructor(name)
  return function(t)
    origin.mark(name, t)
    return t
  end
end

--- An agent can be made by AssistantAgent { … } and by AssistantAgent.create_simple { … }.
local function agent_constructor(name)
  local make = constructor(name)
  return view.lock({ create_simple = make }, name .. ".%s cannot be set", make)
end

M.AssistantAgent = agent_constructor "AssistantAgent"
M.DatabaseAgent = agent_constructor "DatabaseAgent"
M.ConversationFlow = constructor "ConversationFlow"
M.ConversationStep = constructor "ConversationStep"
M.ConversationOrchestrator = constructor "ConversationOrchestrator"
M.system = constructor "system"
M.array = json.array
M.null = json.null

M.ConversationPattern = view.lock({
  STEP_BY_STEP_PROCESS = "step_by_step_process",
  SIMPLE_CHAT = "simple_chat",
  INFORMATION_GATHERING = "information_gathering",
  DECISION_TREE = "decision_tree",
  APPROVAL_WORKFLOW = "approval_workflow",
  MULTI_AGENT_COLLABORATION = "multi_agent_collaboration",
  DATABASE_INTERACTION = "database_interaction",
}, "ConversationPattern.%s cannot be set")

return view.lock(M, LOCKED)
