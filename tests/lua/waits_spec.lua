-- Steps that wait for others than their user: approvals, times, events; and being held.
local Host = require "tests.lua.fake_host"
local json = require "host.json"
local task = require "tidemill.task"

local host

local function load(steps, flow, ...)
  host = Host.new(Host.script(steps, flow, ...))
  host:load()
  return host
end

local function refused(turn)
  return { turn.kind, turn.error.code, turn.error.status }
end

after_each(function() assert.equal(0, task.count(), "a task was left behind") end)

local END = [[ConversationStep { step_id = "yes", step_type = "agent_response", agent = clerk,
    response = "Paid {amount}.", next_steps = { "end" } },
  ConversationStep { step_id = "no", step_type = "agent_response", agent = clerk,
    response = "Refused.", next_steps = { "end" } },]]

describe("what somebody else than the user says", function()
  local function begin(step)
    load(([[ConversationStep { step_id = "first", %s next_steps = { "told" } },
      ConversationStep { step_id = "told", step_type = "action", save_as = "told", max_retries = 1,
        run = function(ctx)
          ctx:http { url = "http://x/" }
          if ctx.step.attempt == 1 then error "again" end
          return { ctx.input == nil }
        end, next_steps = { "end" } },]]):format(step), 'start_step = "first",')
    host:start()
  end

  --- With a call that is cut off, and a retry, in it.
  local function told(kind, given)
    host:signal(kind, given, function(op) return op.kind == "http" end)
    host:crash()
    host:resume()
    host.now = host.ended.wake_at
    return host:resume().state.told
  end

  it("is no input of the steps that follow", function()
    begin 'step_type = "approval", role = "boss", prompt = "?",'
    assert.same({ true }, told("approval", { approved = true, role = "boss", comment = "no" }))
    begin 'step_type = "wait", event = "paid",'
    assert.same({ true }, told("event", { name = "paid", data = { 1 } }))
  end)

  it("is none where it is a command", function()
    begin 'step_type = "user_input", prompt = "?", input_schema = { type = "text" },'
    host:send "so"
    host.now = host.ended.wake_at
    assert.same({ false }, host:resume().state.told)
    load([[ConversationStep { step_id = "told", step_type = "action", save_as = "told",
        run = function(ctx) return ctx.input and { ctx.input } end, next_steps = { "ask" } },
      ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?",
        input_schema = { type = "text" }, next_steps = { "end" } },]], 'start_step = "told",')
    host:start { message = "hello" }
    assert.same({ "hello" }, host.record.state.told)
    assert.is_nil(host:signal("command", { command = "restart" }).state.told)
  end)
end)

describe("an approval", function()
  local function begin(more)
    load(([[ConversationStep { step_id = "ok", step_type = "approval", role = "manager",
      prompt = "Pay {amount}?", save_as = "decision", next_steps = { "yes", "no" },
      conditional_logic = { approved = "yes", rejected = "no" }, %s },]]):format(more or "") .. END,
      'start_step = "ok", variables = { amount = 30 },')
    return host:start()
  end

  it("waits for its role, and keeps who decided what, when and why", function()
    local turn = begin()
    local asked = { step_id = "ok", text = "Pay 30?", role = "manager", revision = 1,
      expires_at = json.null }
    assert.same({ "waiting_approval", "ok", 0, asked }, { turn.status, turn.step, turn.wake_at,
      turn.prompt })
    assert.is_nil(host:signal("pause").prompt)
    assert.same(asked, host:signal("unpause").prompt) -- what it asks is not another one
    assert.equal(host.now + 60000, begin("timeout = 60").prompt.expires_at)
    turn = begin()
    assert.same({ role = "prompt", seq = 1, text = "Pay 30?", step_id = "ok", agent = "manager" },
      turn.messages[1])
    host.now = host.now + 5000
    turn = host:signal("approval", { approved = true, role = "manager", user_id = "ada",
      comment = "fine" })
    assert.same({ "completed", "Paid 30." }, { turn.status, turn.messages[1].text })
    assert.same({ approved = true, role = "manager", user_id = "ada", comment = "fine",
      at = host.now }, turn.state.decision)
    assert.same({ "completed", 5000 }, { turn.steps[1].status,
      turn.steps[1]["end"] - turn.steps[1].start })
  end)

  it("lets nothing past but the decision of that role", function()
    begin()
    local rows = #host.rows
    assert.same({ "fail", "conversation.not_waiting", "conflict" }, refused(host:send "yes"))
    assert.matches("waits for the approval", host.ended.error.message, 1, true)
    assert.same({ "fail", "approval.role", "conflict" },
      refused(host:signal("approval", { approved = true, role = "clerk" })))
    assert.same({ "fail", "approval.role", "conflict" },
      refused(host:signal("approval", { approved = true })))
    assert.same({ "fail", "conversation.not_waiting", "conflict" },
      refused(host:signal("event", { name = "ok" })))
    assert.equal(rows, #host.rows)
    local turn = host:signal("approval", { approved = false, role = "manager" })
    assert.same({ "completed", "Refused." }, { turn.status, turn.messages[1].text })
  end)

  it("takes no decision that was made on what it asked before", function()
    load([[ConversationStep { step_id = "ask", step_type = "user_input", prompt = "How much?",
        input_schema = { type = "integer", required = true }, save_as = "amount",
        next_steps = { "ok" } },
      ConversationStep { step_id = "ok", step_type = "approval", role = "manager",
        prompt = "Pay {amount}?", next_steps = { "yes", "no" },
        conditional_logic = { approved = "yes", rejected = "no" } },]] .. END,
      'start_step = "ask",')
    host:start()
    local function asked(turn) return { turn.prompt.text, turn.prompt.revision } end
    local function decide(revision)
      return host:signal("approval", { approved = true, role = "manager", revision = revision })
    end
    assert.same({ "Pay 30?", 2 }, asked(host:send "30"))
    assert.same({ "Pay 31?", 3 }, asked(host:signal("command",
      { command = "correct", name = "amount", input = "31" })))
    assert.same({ "fail", "approval.changed", "conflict" }, refused(decide(2)))
    assert.matches("since the revision 2 .* with its revision 3", host.ended.error.message)
    host:signal("command", { command = "restart" })
    assert.same({ "Pay 32?", 5 }, asked(host:send "32"))
    assert.same({ "fail", "approval.changed", "conflict" }, refused(decide(3)))
    -- as host/journal/undo_row.c brings it back
    host.record.runtime.restored = { moved = 0, step_seq = 3, revision = 6 }
    assert.same({ "fail", "approval.changed", "conflict" }, refused(decide(5)))
    assert.equal("Paid 32.", decide(6).messages[1].text)
  end)

  it("is decided by default when nobody does, rejected unless it says otherwise", function()
    for default, reply in pairs { [""] = "Refused.", ['default = "approved"'] = "Paid 30." } do
      local turn = begin('timeout = 60, ' .. default)
      assert.equal(host.now + 60000, turn.wake_at)
      host.now = host.now + 59999
      assert.equal("waiting_approval", host:wake().status)
      host.now = host.now + 1
      turn = host:wake()
      assert.same({ "completed", reply, true }, { turn.status, turn.messages[1].text,
        turn.state.decision.timed_out })
    end
  end)

  it("takes no decision when its time is over, though nobody has noticed yet", function()
    begin 'timeout = 60, default = "approved"'
    host.now = host.now + 60000
    local rows, decision = #host.rows, { approved = false, role = "manager" }
    assert.same({ "fail", "conversation.not_waiting", "conflict" },
      refused(host:signal("approval", decision)))
    assert.matches("the time of the step 'ok' is over", host.ended.error.message, 1, true)
    assert.same({ "fail", "approval.role", "conflict" },
      refused(host:signal("approval", { approved = false, role = "clerk" })))
    for _, name in ipairs { "back", "restart", "cancel" } do
      assert.same({ "fail", "conversation.not_waiting", "conflict" },
        refused(host:signal("command", { command = name })), name)
    end
    assert.equal(rows, #host.rows)
    assert.equal("Paid 30.", host:wake().messages[1].text)
    begin 'timeout = 60, default = "approved"'
    host.now = host.now + 59999
    assert.equal("Refused.", host:signal("approval", decision).messages[1].text)
  end)
end)

describe("a wait", function()
  local function begin(fields, flow)
    load(([[ConversationStep { step_id = "hold", step_type = "wait", save_as = "came",
      next_steps = { "yes", "no" }, %s },]]):format(fields) .. END,
      'start_step = "hold", variables = { amount = 30 },' .. (flow or ""))
    return host:start()
  end

  it("sleeps for a duration, a computed one too, and until a time", function()
    for _, fields in ipairs { 'seconds = "30d"',
      'seconds = function(ctx) return ctx.state.amount * 86400 end',
      'until_time = function(ctx) return ctx.now + 30 * 86400000 end' } do
      local turn = begin(fields)
      assert.same({ "sleeping", host.now + 30 * 86400000 }, { turn.status, turn.wake_at })
      assert.same({ step_id = "hold", expires_at = turn.wake_at }, turn.prompt)
      host.now = turn.wake_at - 1
      assert.equal("sleeping", host:wake().status)
      host.now = host.now + 1
      turn = host:wake()
      assert.same({ "completed", "Paid 30.", 30 * 86400000 }, { turn.status,
        turn.messages[1].text, turn.steps[1]["end"] - turn.steps[1].start })
    end
    local turn = begin('until_time = 1')
    assert.equal(1, turn.wake_at, "what has passed is due at once")
  end)

  it("takes its event with what comes with it, and no other", function()
    local turn = begin 'event = "paid-{amount}"'
    assert.same({ "waiting_event", 0 }, { turn.status, turn.wake_at })
    assert.same({ step_id = "hold", event = "paid-30", expires_at = json.null }, turn.prompt)
    assert.same({ "fail", "event.unexpected", "conflict" },
      refused(host:signal("event", { name = "paid-31" })))
    turn = host:signal("event", { name = "paid-30", data = { sum = 7 } })
    assert.equal("paid-30", turn.steps[1].input)
    assert.same({ "completed", { sum = 7 } }, { turn.status, turn.state.came })
    begin 'event = "e"'
    assert.is_nil(host:signal("event", { name = "e", data = json.null }).state.came)
  end)

  it("takes the way of its outcome", function()
    local fields = [[event = "e", timeout = 60,
      conditional_logic = { event = "yes", timeout = "no" }]]
    begin(fields)
    assert.equal("Paid 30.", host:signal("event", { name = "e" }).messages[1].text)
    local turn = begin(fields)
    assert.equal(host.now + 60000, turn.prompt.expires_at)
    host.now = host.now + 60000
    assert.same({ "fail", "conversation.not_waiting", "conflict" },
      refused(host:signal("event", { name = "e" })))
    assert.matches("the time of the step 'hold' is over", host.ended.error.message, 1, true)
    assert.equal("Refused.", host:wake().messages[1].text)
  end)

  it("that cannot know when to go on fails", function()
    for _, fields in ipairs { 'seconds = function() return "soon" end',
      "seconds = function() return {} end", "until_time = function() return -1 end",
      "until_time = function() return 1.5 end" } do
      local turn = begin(fields)
      assert.same({ "failed", "wait.time" }, { turn.status, turn.error.code }, fields)
    end
  end)
end)

describe("being held", function()
  local ASK = [[ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?",
    input_schema = { type = "text", min_length = 2 }, timeout = 60, next_steps = { "end" } },]]

  it("stops everything, deadlines too, and goes on as it was", function()
    load(ASK, 'start_step = "ask",')
    host:start()
    local asked = host:send "x"
    host.now = host.now + 20000
    local turn = host:signal "pause"
    assert.same({ "paused", "ask", 0, nil }, { turn.status, turn.step, turn.wake_at, turn.prompt })
    assert.same({ "fail", "conversation.not_waiting", "conflict" }, refused(host:send "yes"))
    assert.same({ "fail", "conversation.not_waiting", "conflict" }, refused(host:signal "pause"))
    host.now = host.now + 1000000
    turn = host:signal "unpause"
    local prompt = asked.prompt
    prompt.expires_at = host.now + 40000
    assert.same({ "waiting_input", host.now + 40000, prompt }, { turn.status, turn.wake_at,
      turn.prompt })
    assert.same({}, turn.messages)
    assert.same({ "fail", "conversation.not_paused", "conflict" }, refused(host:signal "unpause"))
    assert.equal("completed", host:send("yes").status)
  end)

  it("holds approvals and sleep", function()
    load([[ConversationStep { step_id = "hold", step_type = "wait", seconds = 60,
      next_steps = { "end" } },]], 'start_step = "hold",')
    host:start()
    host:signal "pause"
    host.now = host.now + 100000
    local turn = host:signal "unpause"
    assert.same({ "sleeping", host.now + 60000, host.now + 60000 }, { turn.status, turn.wake_at,
      turn.prompt.expires_at })
  end)
end)

describe("ladders", function()
  local function begin(fields, flow)
    load(([[ConversationStep { step_id = "ask", step_type = "user_input", prompt = "Name?",
      input_schema = { type = "text", min_length = 2 }, next_steps = { "end" }, %s },
      ConversationStep { step_id = "help", step_type = "user_input", prompt = "Help!",
        input_schema = { type = "text" }, next_steps = { "end" } },]]):format(fields or ""),
      'start_step = "ask", variables = { who = "you" },' .. (flow or ""))
    return host:start()
  end
  local MATCH = 'on_no_match = { "Two letters, {who}.", "Please!", { go = "help" } },'

  it("say more with each answer that does not match, and then go elsewhere", function()
    for _, place in ipairs { "step", "flow" } do
      begin(place == "step" and MATCH, place == "flow" and MATCH)
      local turn = host:send "x"
      assert.same({ 2, "Two letters, you." }, { turn.prompt.attempt, turn.prompt.hint })
      assert.equal("Please!", host:send("x").prompt.hint)
      turn = host:send "x"
      assert.same({ "help", "ask", "failed", "input.no_match", "x", 3 }, { turn.step,
        turn.steps[1].step_id, turn.steps[1].status, turn.steps[1].error.code,
        turn.steps[1].input, turn.steps[1].attempt })
      assert.equal(1, turn.prompt.attempt)
    end
  end)

  it("repeat their last rung when that is a text", function()
    begin 'on_no_match = { "a", "b" }'
    for _, hint in ipairs { "a", "b", "b" } do assert.equal(hint, host:send("x").prompt.hint) end
  end)

  local SILENCE = [[on_no_input = { { after = 120, say = "Still there, {who}?" },
    { after = 600, go = "help" } },]]

  it("speak to who is silent, and then go elsewhere", function()
    local turn = begin(SILENCE)
    assert.same({ host.now + 120000, host.now + 600000 }, { turn.wake_at, turn.prompt.expires_at })
    host.now = host.now + 120000
    turn = host:wake()
    assert.same({ "waiting_input", "ask", host.now + 480000, host.now + 480000 }, { turn.status,
      turn.step, turn.wake_at, turn.prompt.expires_at })
    assert.equal("Still there, you?", turn.messages[1].text)
    host.now = host.now + 480000
    turn = host:wake()
    assert.same({ "help", "interaction.timeout" }, { turn.step, turn.steps[1].error.code })
  end)

  it("begin anew with an answer, and come as much later as one of them was late", function()
    begin(SILENCE)
    host.now = host.now + 110000
    assert.equal(host.now + 120000, host:send("x").wake_at)
    host.now = host.now + 10 * 120000
    local turn = host:wake()
    assert.equal("Still there, you?", turn.messages[1].text)
    assert.same({ host.now + 480000, host.now + 480000 }, { turn.wake_at,
      turn.prompt.expires_at })
    assert.equal("completed", host:send("Ada").status)
  end)

  it("go on while the user asks for help, or for what the prompt does not allow", function()
    begin(SILENCE)
    local asked = host.now
    local function say(name)
      local turn = host:signal("command", { command = name })
      return { turn.step, turn.wake_at - asked, turn.prompt.expires_at - asked }
    end
    host.now = asked + 110000
    assert.same({ "ask", 120000, 600000 }, say "help")
    host.now = asked + 120000
    assert.equal("Still there, you?", host:wake().messages[1].text)
    host.now = asked + 599999
    assert.same({ "ask", 600000, 600000 }, say "help")
    assert.same({ "ask", 600000, 600000 }, say "skip")
    assert.same({ "ask", 600000, 600000 }, say "cancel")
    host.now = asked + 600000
    assert.equal("help", host:wake().step)
  end)

  it("close the conversation, of a flow that has one for all its prompts", function()
    begin(nil, 'on_no_input = { { after = "2m", say = "?" }, { after = "1h", close = true } },')
    host.now = host.now + 120000
    host:wake()
    host.now = host.now + 3480000
    assert.equal("expired", host:wake().status)
  end)

  it("of a step come before those of its flow, and so does its timeout", function()
    local function after(...)
      local turn = begin(...)
      return turn.wake_at - host.now
    end
    assert.equal(120000, after(SILENCE, "settings = { interaction_timeout = 5 },"))
    assert.equal(5000, after("timeout = 5", SILENCE))
    assert.equal(120000, after(nil, SILENCE))
  end)

  it("take a late answer for one that came too late, when they lead elsewhere", function()
    begin 'on_no_input = { { after = 600, go = "help" } },'
    host.now = host.now + 600000
    local turn = host:send "Ada"
    assert.same({ "help", "Ada" }, { turn.step, turn.messages[1].text })
    begin(SILENCE)
    host.now = host.now + 120000
    assert.equal("completed", host:send("Ada").status, "a rung that only speaks is no end")
  end)
end)
