--- ConversationOrchestrator { … }: what a script says of all its flows, and the flows that are
--- registered there. The other calls of the guide's orchestrator steer conversations. That is for
--- people and programs outside, not for scripts: each says by what it is done.
local fault = require "tidemill.fault"
local origin = require "tidemill.origin"
local schema = require "tidemill.schema"

local M = {}

local ONE = "/v1/conversations/{id}"

local OUTSIDE = {
  start_conversation = { "POST /v1/conversations", "chat", "tm_conversation_begin" },
  continue_conversation = { "POST " .. ONE .. "/messages", "chat --resume", "tm_message_send" },
  get_conversation_status = { "GET " .. ONE, "conversations show", "tm_conversation_read" },
  list_available_flows = { "GET /v1/systems/{s}/flows", "flows", "tm_systems_read" },
  list_checkpoints = { "GET " .. ONE .. "/checkpoints", "conversations checkpoints",
    "tm_conversation_read" },
  rollback_to_checkpoint = { "POST " .. ONE .. "/rollback", "conversations rollback",
    "tm_conversation_rollback" },
  pause_conversation = { "POST " .. ONE .. "/pause", "conversations pause",
    "tm_conversation_pause" },
  resume_conversation = { "POST " .. ONE .. "/resume", "conversations resume",
    "tm_conversation_resume" },
  fork = { "POST " .. ONE .. "/fork", "conversations fork", "tm_conversation_fork" },
  cancel = { "POST " .. ONE .. "/cancel", "conversations cancel", "tm_conversation_cancel" },
}

--- By the table that the script has: "new", or "loaded" when its flows were taken over.
local known = setmetatable({}, { __mode = "k" })

local methods = {}

---See tm.Orchestrator.register_flow.
function methods.register_flow(orchestrator, flow)
  if origin.kind(flow) ~= "ConversationFlow" then
    fault.misuse("register_flow needs a flow: orchestrator:register_flow(ConversationFlow { … })")
  end
  if known[orchestrator] == "loaded" then
    fault.misuse("register_flow: the system is loaded already; register the flow while init.lua "
      .. "runs, and reload")
  end
  local registered = rawget(orchestrator, "registered_flows") or {}
  registered[#registered + 1] = flow
  rawset(orchestrator, "registered_flows", registered)
end

for name, by in pairs(OUTSIDE) do
  methods[name] = function()
    fault.misuse(("orchestrator:%s is not for scripts, which run inside a conversation: use %s, "
      .. "`tidemill %s` or %s"):format(name, by[1], by[2], by[3]))
  end
end

local Orchestrator = { __index = methods, __metatable = false }

---Gives the table of a script its calls.
---@param t tm.Orchestrator
---@return tm.Orchestrator
function M.of(t)
  known[t] = "new"
  return setmetatable(t, Orchestrator)
end

---What the script gave, without the calls. From here on no flow can be registered.
---@param given tm.Orchestrator?
---@return tm.Orchestrator
function M.plain(given)
  if not given or not known[given] then return given or {} end
  local copied = {}
  known[given] = "loaded"
  for name, value in next, given do copied[name] = value end
  return copied
end

---The flows of a system: its own, and those that are registered, each once.
---@param own tm.Flow[]?
---@param orchestrator tm.Orchestrator checked
---@param report fun(text: string, rule: string)
---@return tm.Flow[]
function M.flows(own, orchestrator, report)
  local list, seen, registered = {}, {}, orchestrator.registered_flows
  if type(registered) ~= "table" then registered = {} end
  local function add(flow)
    if type(flow) ~= "table" or not seen[flow] then list[#list + 1] = flow end
    seen[flow] = true
  end
  for _, flow in ipairs(own or {}) do add(flow) end
  for _, flow in ipairs(registered) do add(flow) end
  for _, key in ipairs(schema.sorted_keys(registered)) do
    local flow = registered[key]
    local id = type(flow) == "table" and flow.flow_id
    if id ~= key then
      report(("orchestrator: registered_flows['%s'] is the flow '%s'; register it under "
        .. "its flow_id"):format(key, tostring(id)), "fields")
    else
      add(flow)
    end
  end
  return list
end

return M
