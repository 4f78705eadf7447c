-- What time decides: expiry, checkpoints; and where a conversation lives.
local Host = require "tests.lua.fake_host"
local json = require "host.json"
local task = require "tidemill.task"

local host

local function load_flow(steps, flow, before, system, config)
  host = Host.new(Host.script(steps, flow, before, system), config)
  host:load()
  return host
end

after_each(function() assert.equal(0, task.count(), "a task was left behind") end)

describe("deadlines", function()
  local function waiting(ask, flow, config)
    load_flow(([[ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?",
      input_schema = { type = "text", min_length = 3 }, next_steps = { "end" },
        %s },]]):format(ask or ""),
      'start_step = "ask",' .. (flow or ""), nil, nil, config)
    return host:start()
  end

  it("come from step, flow, orchestrator or configuration", function()
    assert.equal(0, waiting().wake_at)
    assert.equal(json.null, host.ended.prompt.expires_at)
    assert.equal(host.now + 9000, waiting("", "", { interaction_timeout_ms = 9000 }).wake_at)
    assert.equal(host.now + 60000, waiting("", 'settings = { interaction_timeout = "1m" },',
      { interaction_timeout_ms = 9000 }).wake_at)
    assert.equal(host.now + 5000, waiting("metadata = { timeout = 5 }",
      "settings = { interaction_timeout = 60 },").wake_at)
    assert.equal(host.now + 5000, waiting("timeout = 5").prompt.expires_at)
  end)

  it("expire a silent conversation, durably", function()
    waiting("timeout = 5")
    host.now = host.now + 5000
    local turn = host:wake()
    assert.same({ "turn", "expired", "", 0 }, { turn.kind, turn.status, turn.step, turn.wake_at })
    assert.same({ "ask", "failed", "interaction.timeout" },
      { turn.steps[1].step_id, turn.steps[1].status, turn.steps[1].error.code })
    assert.is_nil(turn.runtime.deadlines)
  end)

  it("that are woken too early wait on, with the same prompt", function()
    waiting("timeout = 5")
    local asked = host:send "x"
    host.now = host.now + 4999
    local turn = host:wake()
    assert.same({ "waiting_input", "ask", asked.wake_at }, { turn.status, turn.step, turn.wake_at })
    assert.same(asked.prompt, turn.prompt)
    assert.same({}, turn.messages)
  end)

  it("start anew with every answer, and are noticed by a late one", function()
    waiting("timeout = 5")
    host.now = host.now + 4000
    assert.equal(host.now + 5000, host:send("x").wake_at)
    host.now = host.now + 5000
    assert.equal("expired", host:send("long enough").status)
    assert.equal("fail", host:wake().kind)
  end)

  it("are noticed by a late command, too, as far as they leave the prompt", function()
    local OTHER = [[ConversationStep { step_id = "other", step_type = "user_input",
      prompt = "Other?", input_schema = { type = "text" }, next_steps = { "end" } },]]
    for rung, comes_to in pairs { ["close = true"] = { "expired", "" },
      ['go = "other"'] = { "waiting_input", "other" }, ['say = "Hello?"'] = { "waiting_input",
      "ask" } } do
      for _, command in ipairs { "help", "skip", "restart" } do
        load_flow(([[ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?",
          input_schema = { type = "text" }, next_steps = { "other" },
          on_no_input = { { after = 5, %s } } },]]):format(rung) .. OTHER,
          'start_step = "ask", settings = { allow_step_skipping = true },')
        host:start()
        host.now = host.now + 5000
        local turn = host:signal("command", { command = command })
        local says = rung:find "say" and command == "skip"
        assert.same(says and { "waiting_input", "other" } or comes_to, { turn.status, turn.step })
      end
    end
  end)
end)

describe("settings of storage", function()
  local STEPS = [[
    ConversationStep { step_id = "note", step_type = "action", run = function() end,
      next_steps = { "ask" } },
    ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?",
      input_schema = { type = "text", min_length = 2 }, next_steps = { "note" } },]]

  local function flags(settings, ...)
    load_flow(STEPS, ('start_step = "note", settings = { %s },'):format(settings))
    local list = { tostring(host:start().checkpoint) }
    for _, given in ipairs { ... } do
      host.now = host.now + given[1] * 1000
      list[#list + 1] = tostring(host:send(given[2]).checkpoint)
    end
    return table.concat(list, " ")
  end

  it("mark checkpoints at waits, when steps were completed and the interval has passed", function()
    assert.equal("true true true", flags("checkpoint_interval = 0", { 0, "ab" }, { 0, "ab" }))
    assert.equal("true false true", flags("checkpoint_interval = 0", { 0, "a" }, { 0, "ab" }))
    assert.equal("true false true", flags("checkpoint_interval = 30", { 29, "ab" }, { 1, "ab" }))
    assert.equal("false false", flags("auto_checkpoint = false", { 99, "ab" }))
  end)

  it("mark a checkpoint by name once, where its step waits for somebody", function()
    load_flow([[
      ConversationStep { step_id = "a", step_type = "user_input", prompt = "A?", checkpoint = "one",
        input_schema = { type = "text", min_length = 2 }, next_steps = { "b" } },
      ConversationStep { step_id = "b", step_type = "wait", event = "x", checkpoint = "two",
        next_steps = { "a" } },]], 'start_step = "a", settings = { auto_checkpoint = false },')
    assert.same({ "one", true }, { host:start().checkpoint_name, host.ended.checkpoint })
    assert.same({ nil, false }, { host:send("x").checkpoint_name, host.ended.checkpoint })
    assert.same({ "two", true }, { host:send("xy").checkpoint_name, host.ended.checkpoint })
    host:signal("event", { name = "x" })
    assert.same({ "one", true }, { host.ended.checkpoint_name, host.ended.checkpoint })
  end)

  it("mark a checkpoint where it waits now, by a name that somebody gives", function()
    load_flow([[
      ConversationStep { step_id = "a", step_type = "user_input", prompt = "A?", checkpoint = "one",
        input_schema = { type = "text" }, next_steps = { "b" } },
      ConversationStep { step_id = "b", step_type = "wait", seconds = 10, next_steps = { "a" } },]],
      'start_step = "a", settings = { auto_checkpoint = false },')
    host:start()
    local prompt = host.ended.prompt
    host:signal("checkpoint", { name = "mine" })
    assert.same({ "mine", true, prompt }, { host.ended.checkpoint_name, host.ended.checkpoint,
      host.ended.prompt })
    assert.same({ 2, 0 }, { host.ended.runtime.wait.shown, #host.ended.messages })
    assert.equal("sleeping", host:send("x").status)
    host:signal("checkpoint", { name = "mine" })
    assert.same({ "conversation.not_waiting", "the conversation is sleeping and waits for a time; "
      .. "read what it does, or start another" }, { host.ended.error.code,
      host.ended.error.message })
  end)

  it("mark no checkpoint where nobody is asked for anything", function()
    load_flow([[
      ConversationStep { step_id = "a", step_type = "user_input", prompt = "A?",
        input_schema = { type = "text" }, next_steps = { "b" } },
      ConversationStep { step_id = "b", step_type = "wait", seconds = 10, next_steps = { "c" } },
      ConversationStep { step_id = "c", step_type = "user_input", prompt = "C?",
        input_schema = { type = "text" }, next_steps = { "end" } },]],
      'start_step = "a", settings = { checkpoint_interval = 15 },')
    host:start()
    assert.same({ "sleeping", false }, { host:send("x").status, host.ended.checkpoint })
    host.now = host.now + 15000
    assert.same({ "waiting_input", true }, { host:wake().status, host.ended.checkpoint })
  end)

  it("compress where flow, orchestrator or configuration say it, in this order", function()
    local function compressed(flow, orchestrator, config)
      load_flow(STEPS, ('start_step = "note", settings = { %s },'):format(flow), nil,
        (', }, orchestrator = { persistence_config = { %s } '):format(orchestrator), config)
      return host:start().compress
    end
    assert.is_false(compressed("", "", {}))
    assert.is_true(compressed("compress_state = true", "", {}))
    assert.is_true(compressed("", "compression = true", {}))
    assert.is_true(compressed("", "", { compress = true }))
    assert.is_false(compressed("compress_state = false", "compression = true", { compress = true }))
    assert.is_false(compressed("", "compression = false", { compress = true }))
    assert.is_true(host:send("ab").compress == false, "every row says it")
  end)

  it("seal when anybody says it, and nobody takes it back", function()
    local function sealed(flow, orchestrator, seal)
      load_flow(STEPS, ('start_step = "note", settings = { %s },'):format(flow), nil,
        (', }, orchestrator = { %s '):format(orchestrator), { seal = seal, can_seal = true })
      local first = host:start().seal
      assert.equal(first, host:send("ab").seal)
      return first
    end
    local no = "encrypt_sensitive_data = false"
    assert.is_false(sealed("", "", false))
    assert.is_true(sealed("encrypt_sensitive_data = true", "encryption = false", false))
    assert.is_true(sealed(no, "encryption = true", false))
    assert.is_true(sealed(no, "persistence_config = { encryption = true }", false))
    assert.is_true(sealed(no, "", true))
  end)

  it("do not run a sealed flow on a record that is not sealed", function()
    load_flow(STEPS, 'start_step = "note", settings = { encrypt_sensitive_data = true },', nil, nil,
      { can_seal = true })
    host:start()
    host.unsealed = true
    local ended = host:send("ab")
    assert.equal("fail", ended.kind)
    assert.equal("seal.plaintext", ended.error.code)
    assert.equal("corrupt", ended.error.status)
    assert.matches("accept_plaintext", ended.error.message, 1, true)
    load_flow(STEPS, 'start_step = "note",')
    host:start()
    host.unsealed = true
    assert.equal("turn", host:send("ab").kind, "nobody asked for it")
  end)

  it("keep a conversation in memory when asked", function()
    load_flow(STEPS, 'start_step = "note", settings = { persist_state = false },')
    assert.is_true(host:start().in_memory)
    assert.is_false(host:send("ab").in_memory, "only the start says so")
    load_flow(STEPS, 'start_step = "note",')
    assert.is_false(host:start().in_memory)
    load_flow(STEPS, 'start_step = "note",', nil, nil, { persist_state = false })
    assert.is_true(host:start().in_memory, "auto_save of agent_config.yaml")
    load_flow(STEPS, 'start_step = "note", settings = { persist_state = true },', nil, nil,
      { persist_state = false })
    assert.is_false(host:start().in_memory)
  end)
end)
