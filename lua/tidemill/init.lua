--- What a script gets from `require "tidemill"`. The constructors only note what was written and
--- where; everything is checked when the whole system is loaded (tidemill.system).
local fault = require "tidemill.fault"
local json = require "host.json"
local orchestrator = require "tidemill.orchestrator"
local origin = require "tidemill.origin"
local pattern = require "tidemill.pattern"
local schema = require "tidemill.schema"
local view = require "tidemill.view"

local LOCKED = "tidemill.%s cannot be set"

local M = {}

--- A name that is not there is a mistake at the script's line, not a nil that is taken for nothing.
local function strict(t, what)
  return setmetatable(t, { __index = function(_, name)
    fault.misuse(("%s has no '%s'%s"):format(what, tostring(name),
      schema.hint(tostring(name), t)))
  end })
end

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
M.ConversationOrchestrator = function(t)
  origin.mark("ConversationOrchestrator", t)
  return orchestrator.of(t)
end
M.system = constructor "system"
M.array = json.array
M.null = json.null

M.ConversationPattern = view.lock(strict({
  STEP_BY_STEP_PROCESS = "step_by_step_process",
  SIMPLE_CHAT = "simple_chat",
  INFORMATION_GATHERING = "information_gathering",
  DECISION_TREE = "decision_tree",
  APPROVAL_WORKFLOW = "approval_workflow",
  MULTI_AGENT_COLLABORATION = "multi_agent_collaboration",
  DATABASE_INTERACTION = "database_interaction",
}, "ConversationPattern"), "ConversationPattern.%s cannot be set")

M.pattern = view.lock(strict(pattern.builders, "pattern"), "pattern.%s cannot be set")

strict(M, "tidemill")

return view.lock(M, LOCKED)
