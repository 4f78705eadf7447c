-- `conversation_summary`: an agent gets what was said, its answer is the conversation's summary.
local Host = require "tests.lua.fake_host"
local json = require "host.json"
local task = require "tidemill.task"

local host

after_each(function() assert.equal(0, task.count(), "a task was left behind") end)

local SCRIBE = [[local scribe = { respond = function(ctx, request)
  local said = {}
  for i, one in ipairs(request.transcript) do said[i] = one.role .. "=" .. one.text end
  return CALLS and ctx:http { url = "http://x/", method = "POST", json = request.transcript }.body
    or table.concat(said, "|")
end }]]

local STEPS = [[
  ConversationStep { step_id = "hello", step_type = "agent_response", agent = clerk,
    response = "Hello.", next_steps = { "ask" } },
  ConversationStep { step_id = "ask", step_type = "user_input", prompt = "More?", save_as = "wish",
    input_schema = { type = "text" }, next_steps = { "ask", "say", "sum" }, conditional_logic = {
      condition = function(ctx) return #ctx.output < 9 and ctx.output or "long" end,
      sum = "sum", say = "say", default = "ask" } },
  ConversationStep { step_id = "say", step_type = "agent_response", agent = clerk,
    response = "Bye, {wish}.", next_steps = { "sum" } },
  ConversationStep { step_id = "sum", step_type = "agent_response", agent = %s, %s
    metadata = { conversation_summary = true }, next_steps = { "ask" } },]]

local function load_flow(agent, fields, before, agents)
  host = Host.new(Host.script(STEPS:format(agent or '"scribe"', fields or ""),
    'start_step = "hello",', (before or "") .. SCRIBE, ", scribe = scribe" .. (agents or "")))
  host:load()
  return host
end

local function summary() return host.record.runtime.summary end

describe("a summary", function()
  it("is made of what was said, in rows and since then, and is shown by the record", function()
    load_flow()
    host.page_size = 1
    host:start()
    assert.is_nil(summary())
    host:send "tea"
    local turn = host:send "say"
    local all = "agent=Hello.|prompt=More?|user=tea|prompt=More?|user=say|agent=Bye, say."
    assert.equal(all, summary())
    assert.equal(all, turn.messages[3].text) -- the answer is said as well
    assert.equal("waiting_input", turn.status)
    host:send "sum"
    assert.equal(all .. "|agent=" .. all .. "|prompt=More?|user=sum", summary())
  end)

  it("has the message that opened the conversation, and may be the first step", function()
    host = Host.new(Host.script([[ConversationStep { step_id = "sum", step_type = "agent_response",
      agent = "scribe", metadata = { conversation_summary = true }, next_steps = { "end" } },]],
      'start_step = "sum",', SCRIBE, ", scribe = scribe"))
    host:load()
    assert.equal("", host:start().runtime.summary)
    host.rows, host.record = {}, { status = "active", step = "" }
    assert.equal("user=Help!", host:start({ message = "Help!" }).runtime.summary)
  end)

  it("is what the offline assistant says by its response, where {transcript} has a name", function()
    load_flow("clerk", [[prompt = "Sum up: {transcript}", response = "So far:\n{transcript}",]])
    host:start()
    host:send "sum"
    assert.equal("So far:\nclerk: Hello.\nprompt: More?\nuser: sum", summary())
    assert.is_nil(task.dispatch(0, "check", "shop"):find("nothing sets", 1, true))
    load_flow("clerk", [[response = "{transcript} {transcrip}",]])
    assert.matches("names {transcrip}, which nothing sets", task.dispatch(0, "check", "shop"), 1,
      true)
  end)

  it("is long or short: its first characters are kept", function()
    load_flow("clerk", ([[response = ("ä"):rep(3000),]]))
    host:start()
    host:send "sum"
    assert.equal(("ä"):rep(2000) .. "…", summary())
    assert.equal(6000, #host.ended.messages[2].text)
  end)

  it("is made anew when the turn runs again after a crash, of the same", function()
    load_flow(nil, nil, "local CALLS = true ")
    host.outside = function(request)
      return { status = 200, headers = {}, body = "digest of " .. #request.body }
    end
    host:start()
    host:send("say", function(op) return op.kind == "http" end)
    local asked = host.requests[1].body
    host:crash()
    host:resume(function(op) return op.kind == "call" end)
    assert.equal(asked, host.requests[2].body)
    assert.equal(host.requests[1].headers["Idempotency-Key"],
      host.requests[2].headers["Idempotency-Key"])
    assert.same({ "agent", "prompt", "user", "agent" }, (function()
      local roles = {}
      for i, one in ipairs(json.decode(asked)) do roles[i] = one.role end
      return roles
    end)())
    host:crash()
    assert.equal("waiting_input", host:resume().status)
    assert.equal("digest of " .. #asked, summary())
  end)

  it("leaves out the beginning of what is too long, and says so", function()
    load_flow()
    host:start()
    for _ = 1, 260 do host:send "tea" end
    host:send "sum"
    local first, second = summary():match "^note=(.-)|(.-)|"
    assert.matches("beginning of the conversation was left out", first, 1, true)
    assert.matches("at most 500 messages and 262144 bytes", first, 1, true)
    assert.equal("prompt=More?", second)
    local said = host.ended.messages[2].text
    assert.equal(500, select(2, said:gsub("|%a+=", "")))
    load_flow()
    host:start()
    host:send(("x"):rep(200000))
    host:send(("y"):rep(100000))
    host:send "sum"
    said = host.ended.messages[2].text
    assert.matches("^note=[^|]*|prompt=More%?|user=yyy", said)
    assert.is_nil(said:find("xxx", 1, true))
  end)

  it("fails with what could not be read, as a step does that is tried again", function()
    load_flow(nil, "max_retries = 1,")
    host:start()
    host.messages_error = { code = "store.busy", message = "busy", retryable = true }
    local turn = host:send "sum"
    assert.same({ "suspend", "store.busy" }, { turn.kind, turn.steps[2].error.code })
    host.messages_error = nil
    host:resume()
    assert.equal("agent=Hello.|prompt=More?|user=sum", summary())
  end)

  it("is seen by who reviews it", function()
    load_flow(nil, 'review = "judge",', [[
      local judge = { respond = function(ctx, request)
        return { outcome = #request.transcript == 3 and "pass" or "reject" }
      end } ]], ", judge = judge")
    host:start()
    assert.equal("waiting_input", host:send("sum").status)
  end)

  it("is gone when the flow begins anew, and is not what a correction goes over", function()
    load_flow()
    host:start()
    host:send "sum"
    local refused = host:signal("command", { command = "correct", name = "wish", input = "tea" })
    assert.same({ "fail", "command.refused" }, { refused.kind, refused.error.code })
    assert.matches("the step 'sum' (agent_response) has come between", refused.error.message, 1,
      true)
    assert.is_truthy(summary())
    host:signal("command", { command = "restart" })
    assert.is_nil(summary())
  end)
end)

describe("conversation_summary", function()
  local function findings(steps, more)
    host = Host.new((Host.script(steps, 'start_step = "p",', SCRIBE, ", scribe = scribe")
      :gsub("flows = {", function(text) return text .. (more or "") end)))
    local ok, err = pcall(host.load)
    assert(not ok, "nothing was found")
    return err.message
  end
  local SUM = [[ConversationStep { step_id = "sum", step_type = "agent_response", agent = "scribe",
    metadata = { conversation_summary = true }, next_steps = { "end" } },]]
  local FORK = [[ConversationStep { step_id = "p", step_type = "parallel", save_as = "all",
    branches = { a = %s }, next_steps = { "end" } },]]

  it("is refused in a branch, wherever it leads, and where no agent speaks", function()
    assert.matches("step 'sum': has metadata.conversation_summary", findings(FORK:format("{"
      .. SUM .. "}")), 1, true)
    assert.matches("leads to the step 'sum' of the flow 'other', which has metadata.conv",
      findings(FORK:format "'other'", 'tm.ConversationFlow { flow_id = "other", start_step = "sum",'
        .. " steps = { " .. SUM .. " } },"), 1, true)
    assert.matches("'conversation_summary' does not belong to 'action'", findings(
      [[ConversationStep { step_id = "p", step_type = "action", run = function() end,
        metadata = { conversation_summary = true }, next_steps = { "end" } },]]), 1, true)
  end)
end)
