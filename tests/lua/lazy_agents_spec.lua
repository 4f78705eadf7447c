-- Agents that are given as functions: made at start, or with lazy_load_agents at their first use.
local Host = require "tests.lua.fake_host"
local task = require "tidemill.task"

local host

after_each(function() assert.equal(0, task.count(), "a task was left behind") end)

--- What the agent says is how often it was made, and asked, until now.
local BEFORE = [[
local made, asked = 0, 0
local function scribe() %s made = made + 1
  return { respond = function(ctx, request)
    asked = asked + 1
    return { text = ("made %%d, asked %%d, %%s"):format(made, asked, request.prompt),
      outcome = request.outcomes and "pass" }
  end }
end
local function count(ctx) return made end]]

local STEPS = [[
  ConversationStep { step_id = "count", step_type = "action", run = count, save_as = "made",
    next_steps = { "ask" } },
  ConversationStep { step_id = "ask", step_type = "user_input", prompt = "Made {made}?",
    input_schema = { type = "text" }, next_steps = { "say" } },
  ConversationStep { step_id = "say", step_type = "agent_response", prompt = "so",
    next_steps = { "ask" }, %s },]]

local function new(lazy, maker, say, agents, more)
  host = Host.new((Host.script(STEPS:format(say or "agent = scribe"),
    ('start_step = "count", settings = { lazy_load_agents = %s },'):format(lazy),
    BEFORE:format(maker or ""), agents or ", scribe = scribe")
    :gsub("flows = {", function(text) return text .. (more or "") end)))
  return host
end

local function load(...)
  new(...)
  host:load()
  return host
end

local function findings(...)
  new(...)
  return task.dispatch(0, "check", "shop")
end

describe("an agent that is given as a function", function()
  it("is made at start, once", function()
    load "false"
    assert.equal("Made 1?", host:start().prompt.text)
    assert.equal("made 1, asked 1, so", host:send("x").messages[2].text)
    assert.equal("made 1, asked 2, so", host:send("x").messages[2].text)
  end)

  it("is made at its first use where lazy_load_agents says so", function()
    load "true"
    assert.equal("Made 0?", host:start().prompt.text)
    assert.equal("made 1, asked 1, so", host:send("x").messages[2].text)
    assert.equal("made 1, asked 2, so", host:send("x").messages[2].text)
  end)

  it("is made at start when some flow does not wait, or nobody uses it", function()
    load("true", nil, nil, nil, [[tm.ConversationFlow { flow_id = "b", start_step = "s", steps = {
      ConversationStep { step_id = "s", step_type = "agent_response", agent = "scribe",
        next_steps = { "end" } } } }, ]])
    assert.equal("Made 1?", host:start().prompt.text)
    load("true", nil, "agent = clerk")
    assert.equal("Made 1?", host:start().prompt.text)
  end)

  it("is made for a review as well", function()
    load("true", nil, 'agent = clerk, response = "Hello.", review = scribe')
    assert.equal("Made 0?", host:start().prompt.text)
    assert.equal("Hello.", host:send("x").messages[2].text)
  end)

  it("that cannot be made keeps the system from starting, or fails the step", function()
    for maker, text in pairs {
      ["do return {} end"] = "must return a table with a function respond%(ctx, request%)",
      ["do return 5 end"] = "the function that makes the agent 'scribe' must return a table",
      ["do return nil, 'no licence' end"] = "no licence",
      ["error 'no connection'"] = "init.lua:5: no connection" } do
      assert.matches("agent 'scribe': .*" .. text, findings("false", maker))
      assert.is_nil(findings("true", maker):find('"level":"error","line":%d+,"rule":"agents"'))
      load("true", maker)
      host:start()
      local turn = host:send "x"
      assert.equal("failed", turn.status)
      assert.matches(text, turn.error.message)
      if maker:find("do return [{5]") then assert.equal("agent.invalid", turn.error.code) end
    end
  end)

  it("is made in the next attempt when it could not be", function()
    load("true", "asked = asked + 1 if asked == 1 then return nil, 'busy' end",
      "agent = scribe, max_retries = 1")
    host:start()
    assert.equal("suspend", host:send("x").kind)
    assert.equal("made 1, asked 3, so", host:resume().messages[1].text)
  end)
end)
