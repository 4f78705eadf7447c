-- The orchestrator's words in a script: flows are registered there; what steers conversations is
-- refused by name, with who offers it.
local Host = require "tests.lua.fake_host"

local SCRIPT = [[
local tm = require "tidemill"
local function flow(id, said)
  return tm.ConversationFlow { flow_id = id, start_step = "s", steps = { tm.ConversationStep {
    step_id = "s", step_type = "agent_response", agent = "clerk", response = said or id,
    next_steps = { "end" } } } }
end
local orchestrator = tm.ConversationOrchestrator { %s }
%s
return tm.system { agents = { clerk = tm.AssistantAgent { user_id = "clerk" } },
  orchestrator = orchestrator, %s }]]

local host

local function new(fields, code, more)
  host = Host.new(SCRIPT:format(fields, code, more))
end

local function flows(fields, code, more)
  new(fields, code or "", more or "")
  local ids = {}
  for i, flow in ipairs(host.load().flows) do ids[i] = flow.flow_id end
  return table.concat(ids, " ")
end

local function refused(...)
  new(...)
  local ok, err = pcall(host.load)
  assert(not ok, "nothing was found")
  return tostring(err.message)
end

describe("an orchestrator", function()
  it("has the flows that are registered, behind those of the system, each once", function()
    assert.equal("a", flows("", 'orchestrator:register_flow(flow "a")'))
    assert.equal("a b c d e", flows('registered_flows = { flow "b", e = flow "e", d = flow "d" }',
      'orchestrator:register_flow(flow "c")', 'flows = { flow "a" }'))
    assert.equal("a b", flows("", [[local a, b = flow "a", flow "b"
      orchestrator.registered_flows = { b = b, a = a }]], "flows = { a }"))
    assert.equal("a", flows("", [[for _, one in ipairs { flow "a" } do
      orchestrator:register_flow(one) orchestrator:register_flow(one) end]]))
  end)

  it("runs what was registered, also as a sub-flow of another one", function()
    assert.equal("main", flows("", 'orchestrator:register_flow(flow("main", "Hello."))'))
    assert.equal("Hello.", host:start().messages[1].text)
    assert.equal("x y", flows("", [[orchestrator:register_flow(flow "y")]], [[flows = {
      tm.ConversationFlow { flow_id = "x", start_step = "s", steps = { tm.ConversationStep {
        step_id = "s", step_type = "subflow", flow = "y", next_steps = { "end" } } } } }]]))
  end)

  it("is told what is wrong at its line", function()
    assert.matches("init.lua:8: .*register_flow needs a flow", refused("",
      "orchestrator:register_flow { flow_id = 'a' }", ""))
    assert.matches("registered_flows%['a'%] is the flow 'b'; register it under its flow_id",
      refused('registered_flows = { a = flow "b" }', "", 'flows = { flow "c" }'))
    assert.matches("registered_flows%['a'%] is the flow 'false'",
      refused('registered_flows = { a = 5 }', "", 'flows = { flow "c" }'))
    assert.matches("flow 'a': this flow_id is there twice", refused("",
      'orchestrator:register_flow(flow "a")', 'flows = { flow "a" }'))
    assert.matches("must be a ConversationFlow", refused("registered_flows = { 5 }", "", ""))
    assert.matches("'registered_flows' must be a table", refused("registered_flows = 5", "", ""))
    assert.matches("a system needs at least one flow", refused("", "", ""))
  end)

  it("takes no flow any more when the system is loaded", function()
    new("", [[orchestrator:register_flow(tm.ConversationFlow { flow_id = "main", start_step = "s",
      steps = { tm.ConversationStep { step_id = "s", step_type = "action", next_steps = { "end" },
        run = function() orchestrator:register_flow(flow "b") end } } })]], "")
    host.load()
    local turn = host:start()
    assert.equal("failed", turn.status)
    assert.matches("the system is loaded already", turn.error.message, 1, true)
  end)

  it("leaves steering conversations to others, and says to whom", function()
    for name, by in pairs {
      start_conversation = "use POST /v1/conversations, `tidemill chat` or tm_conversation_begin",
      continue_conversation = "use POST /v1/conversations/{id}/messages, `tidemill chat --resume` "
        .. "or tm_message_send",
      get_conversation_status = "`tidemill conversations show`",
      list_available_flows = "GET /v1/systems/{s}/flows, `tidemill flows` or tm_systems_read",
      list_checkpoints = "GET /v1/conversations/{id}/checkpoints",
      rollback_to_checkpoint = "tm_conversation_rollback", fork = "tm_conversation_fork",
      pause_conversation = "tm_conversation_pause", cancel = "tm_conversation_cancel",
      resume_conversation = "`tidemill conversations resume`" } do
      local message = refused("", ("orchestrator:%s('x')"):format(name), "")
      assert.matches(("init.lua:8: orchestrator:%s is not for scripts"):format(name), message,
        1, true)
      assert.matches(by, message, 1, true)
    end
  end)
end)
