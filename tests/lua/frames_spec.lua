-- Flows in flows: sub-flows, branches to a flow, digressions.
local Host = require "tests.lua.fake_host"
local json = require "host.json"
local task = require "tidemill.task"

local host

local function ask(id, more)
  return ([[ConversationStep { step_id = "%s", step_type = "user_input", prompt = "%s?",
    input_schema = { type = "text", required = true, min_length = 2 }, %s },]]):format(id, id, more)
end

local function flow(id, start, steps, more)
  return ([[tm.ConversationFlow { flow_id = "%s", start_step = "%s", %s steps = { %s } },]])
    :format(id, start, more or "", steps)
end

--- The system of the host's script has one flow; further ones are put beside it.
local function load(steps, main, others, before, orchestrator)
  local script = Host.script(steps, main, before)
  script = script:gsub("return tm.system {", "%0 " .. (orchestrator or ""))
  local at = script:find("flows = {", 1, true)
  assert(at, script)
  host = Host.new(script:sub(1, at + 8) .. table.concat(others or {}) .. script:sub(at + 9))
  host:load()
  return host
end

local function texts(turn)
  local said = {}
  for i, message in ipairs(turn.messages) do said[i] = message.role .. ": " .. message.text end
  return said
end

local function names(turn)
  local ids = {}
  for i, step in ipairs(turn.steps) do ids[i] = step.step_id .. " " .. step.status end
  return ids
end

after_each(function() assert.equal(0, task.count(), "a task was left behind") end)

local REASON = flow("reason", "why", ask("why", 'save_as = "why", next_steps = { "grade" }') .. [[
  ConversationStep { step_id = "grade", step_type = "action", save_as = "grade",
    run = function(ctx)
      ctx.state.order.seen = true
      return #ctx.state.why + ctx.state.bonus
    end, next_steps = { "end" } },]],
  'variables = { order = {}, bonus = { type = "integer", default = 0 }, unset = false },')

local CALLER = ask("order", 'save_as = "order", next_steps = { "wrap" }') .. [[
  ConversationStep { step_id = "wrap", step_type = "action", save_as = "box",
    run = function(ctx) return { id = ctx.state.order } end, next_steps = { "reason" } },
  ConversationStep { step_id = "reason", step_type = "subflow", flow = "reason", %s
    next_steps = { "last" } },]] .. ask("last", 'save_as = "last", next_steps = { "end" }')

local AGAIN = "orchestrator = { error_config = { auto_recovery = true } },"

local ARGUMENTS = [[arguments = { order = "{box}", bonus = 7 }, result = { "why", "grade" },
  save_as = "answer",]]

describe("a subflow", function()
  local function begin(fields)
    load(CALLER:format(fields or ARGUMENTS), 'start_step = "order",', { REASON })
    host:start()
    return host:send "A1"
  end

  it("asks in its own steps, with a state of its own, and brings its result", function()
    local inside = begin()
    assert.same({ "waiting_input", "why", "why?" }, { inside.status, inside.step,
      inside.prompt.text })
    assert.same({ order = "A1", box = { id = "A1" } }, inside.state)
    assert.same({ order = { id = "A1" }, bonus = 7, unset = false }, inside.runtime.state)
    host.now = host.now + 1000
    local after = host:send "broken"
    assert.same({ "last", { why = "broken", grade = 13 } }, { after.step, after.state.answer })
    assert.same({ id = "A1" }, after.state.box, "the two states share no table")
    assert.same({ "why completed", "grade completed", "reason completed" }, names(after))
    local whole = after.steps[3]
    assert.same({ "subflow", 1000, 5 }, { whole.type, whole["end"] - whole.start, whole.seq })
    assert.same({ nil, nil, nil }, { after.runtime.frames, after.runtime.flow,
      after.runtime.state })
    assert.equal("completed", host:send("thanks").status)
  end)

  it("goes on inside after a refused answer, with its own attempt", function()
    begin()
    local again = host:send "x"
    assert.same({ "why", 2 }, { again.step, again.prompt.attempt })
    assert.same({ "last", 1 }, { host:send("broken").step, host.ended.prompt.attempt })
  end)

  it("gives one value when result is one name", function()
    begin 'result = "why", save_as = "answer",'
    assert.equal("broken", host:send("broken").state.answer or host.ended.error.message)
  end)

  it("needs arguments of the declared type, and a result that is there", function()
    local turn = begin 'arguments = { bonus = "{order}" },'
    assert.same({ "failed", "subflow.argument" }, { turn.status, turn.error.code })
    begin 'result = "missing", save_as = "answer",'
    turn = host:send "broken"
    assert.same({ "failed", "subflow.result", "reason" },
      { turn.status, turn.error.code, turn.error.step_id })
  end)

  it("that fails fails the step that waits for it, which may have a way out", function()
    local function broken(way_out)
      load(([[ConversationStep { step_id = "sub", step_type = "subflow", flow = "bad", %s
        next_steps = { "end" } },]]):format(way_out) .. ask("help", 'next_steps = { "end" }'),
        'start_step = "sub",', { flow("bad", "boom",
        [[ConversationStep { step_id = "boom", step_type = "action", next_steps = { "end" },
          run = function() error "no" end },]]) })
      return host:start()
    end
    local turn = broken 'on_error = "help",'
    assert.same({ "help", nil }, { turn.step, turn.runtime.frames })
    assert.same({ "boom failed", "sub failed" }, names(turn))
    turn = broken ""
    assert.same({ "failed", "sub" }, { turn.status, turn.error.step_id })
  end)

  it("that runs once more does not count its attempts for the steps of its flow", function()
    load([[ConversationStep { step_id = "sub", step_type = "subflow", flow = "short",
      result = "missing", next_steps = { "end" } },]], 'start_step = "sub",', { flow("short",
      "note", [[ConversationStep { step_id = "note", step_type = "action", run = function() end,
        next_steps = { "end" } },]]) }, nil, AGAIN)
    assert.same({ "waiting_input", "sub" }, { host:start().status, host.ended.step })
    local turn = host:send "again"
    assert.same({ "note completed", "sub failed" }, names(turn))
    assert.same({ 1, 3 }, { turn.steps[1].attempt, turn.steps[1].seq })
  end)

  it("may be in a subflow, to a bounded depth", function()
    load([[ConversationStep { step_id = "deeper", step_type = "subflow", flow = "main",
      next_steps = { "end" } },]], 'start_step = "deeper",')
    local turn = host:start()
    assert.same({ "failed", "flow.too_deep" }, { turn.status, turn.error.code })
    assert.equal(17, #turn.steps)
  end)

  it("is resumed inside, after a call to the outside was cut off", function()
    load([[ConversationStep { step_id = "sub", step_type = "subflow", flow = "fetch",
      arguments = { n = 4 }, result = "n", save_as = "n", next_steps = { "ask" } },]]
      .. ask("ask", 'next_steps = { "end" }'), 'start_step = "sub", variables = { mine = 1 },',
      { flow("fetch", "get", [[
        ConversationStep { step_id = "get", step_type = "action", next_steps = { "end" },
          run = function(ctx)
            ctx.state.n = ctx.state.n + ctx:http { url = "http://x/" }.json
          end },]], "variables = { n = 0 },") })
    host.outside = function()
      return { status = 200, headers = { ["content-type"] = "application/json" }, body = "38" }
    end
    local turn = host:start()
    assert.same({ 42, 1 }, { turn.state.n, turn.state.mine })
    assert.same({ n = 4 }, host.rows[1].runtime.state)
    assert.same({ mine = 1 }, host.rows[1].state)
  end)
end)

describe("the timeout of a subflow", function()
  local HOUR = 3600000

  --- Asks "order?"; the flow behind it has an hour.
  local function prepare(more, other)
    load(CALLER:format("timeout = 3600, " .. (more or 'on_error = "last",')),
      'start_step = "order",', { other or REASON })
    host:start()
  end

  --- Asks "why?" in the other flow.
  local function begin(more)
    prepare(more)
    return host:send "A1"
  end

  local function after(ms) host.now = host.now + ms end

  local LATE = { "last", "why failed", "reason failed" }
  local function late(turn) return { turn.step, table.unpack(names(turn)) } end

  it("fails its step when it has passed, whatever the other flow waits for", function()
    local turn = begin()
    assert.equal(host.now + HOUR, turn.wake_at)
    after(HOUR - 1)
    assert.same({ "waiting_input", host.now + 1 }, { host:wake().status, host.ended.wake_at })
    after(1)
    turn = host:wake()
    assert.same(LATE, late(turn))
    assert.same({ "step.timeout", HOUR, 1 }, { turn.steps[2].error.code,
      turn.steps[2]["end"] - turn.steps[2].start, turn.steps[2].attempt })
    assert.matches("3600 seconds that the step 'reason' %(scripts/shop/init.lua:%d+%) gives it",
      turn.steps[2].error.message)
    assert.same({ nil, 0 }, { turn.runtime.frames, turn.wake_at })
    assert.equal("completed", host:send("thanks").status)
  end)

  it("ends the conversation where no on_error leads on", function()
    begin ""
    after(HOUR)
    assert.same({ "failed", "step.timeout" }, { host:wake().status, host.ended.error.code })
  end)

  it("does not look at what comes too late", function()
    for _, come in ipairs { { "message", "broken" }, { "command", { command = "cancel" } } } do
      begin()
      after(HOUR)
      assert.same(LATE, late(host:turn(come[1], come[2])))
      assert.same({ "prompt: last?" }, texts(host.ended))
    end
  end)

  it("counts from its step on, not from the last answer, and stands still in a pause", function()
    begin()
    after(HOUR - 1000)
    assert.equal(host.now + 1000, host:send("x").wake_at)
    host:signal "pause"
    after(5 * HOUR)
    assert.same({ "waiting_input", host.now + 1000 }, { host:signal("unpause").status,
      host.ended.wake_at })
    after(1000)
    host:signal "pause"
    assert.equal("paused", host.ended.status, "an operator comes first")
    assert.same(LATE, late(host:signal "unpause"))
  end)

  it("is that of the outer one where that is over first", function()
    local function sub(id, to, timeout)
      return ([[ConversationStep { step_id = "%s", step_type = "subflow", flow = "%s",
        timeout = %d, on_error = "help", next_steps = { "help" } },]]):format(id, to, timeout)
        .. ask("help", 'next_steps = { "end" }')
    end
    load(sub("outer", "middle", 100), 'start_step = "outer",', {
      flow("middle", "inner", sub("inner", "low", 200)),
      flow("low", "deep", ask("deep", 'next_steps = { "end" }')) })
    assert.equal(host.now + 100000, host:start().wake_at)
    after(300000)
    assert.same({ "deep failed", "outer failed" }, names(host:wake()))
    assert.same({ "help", nil }, { host.ended.step, host.ended.runtime.frames })
  end)

  local CALL = flow("reason", "call", [[ConversationStep { step_id = "call", step_type = "action",
    max_retries = 9, retry_delay = %d, next_steps = { "slow" }, run = function(ctx)
      local answer, err = ctx:http { url = "http://x/" }
      return answer and answer.body, err
    end },
    ConversationStep { step_id = "slow", step_type = "action", next_steps = { "end" },
      run = function(ctx) return ctx:http { url = "http://y/" } end },]])

  it("does not wait for an attempt that comes later", function()
    prepare(nil, CALL:format(7200))
    host.outside = function()
      return nil, { code = "http.connect", message = "no", retryable = true }
    end
    local at = host.now + HOUR
    assert.same({ "suspend", at }, { host:send("A1").kind, host.ended.wake_at })
    host.now = at
    assert.same({ "reason failed" }, names(host:resume()))
    assert.same({ 1, nil }, { host.ended.steps[1].attempt, host.ended.runtime.attempt })
  end)

  it("keeps what the branches of an interrupted step had come to", function()
    local PAY = [[ConversationStep { step_id = "%s", step_type = "action", undo = function() end, %s
      run = function(ctx) return ctx:http { url = "http://%s/" }.status end },]]
    prepare(nil, flow("reason", "both", ([[ConversationStep { step_id = "both",
      step_type = "parallel", next_steps = { "end" }, branches = { l = { %s %s } } },]])
      :format(PAY:format("pay", 'next_steps = { "ship" },', "pay"),
      PAY:format("ship", "", "ship"))))
    host:send("A1", function(op) return op.url == "http://ship/" end)
    host:crash()
    after(HOUR)
    assert.same({ "both failed", "pay completed", "ship cancelled", "reason failed" },
      names(host:resume()))
    local steps = host.ended.steps
    assert.same({ true, true, true, 200, "reason/both/l" }, { steps[1].called, steps[2].called,
      steps[3].called, steps[2].output, steps[2].undo })
  end)

  it("is over before a step in a branch is tried again behind it", function()
    prepare(nil, flow("reason", "both", [[ConversationStep { step_id = "both",
      step_type = "parallel", next_steps = { "end" }, branches = { l = { ConversationStep {
        step_id = "pay", step_type = "action", max_retries = 9, retry_delay = 3000,
        run = function(ctx) return nil, { code = "shop.down", message = "no" } end } } } },]]))
    local at = host.now + HOUR
    assert.same({ "both failed", "pay failed", "pay failed", "reason failed" },
      names(host:send "A1"))
    assert.same({ at, "step.timeout" }, { host.now, host.ended.steps[1].error.code })
  end)

  it("ends what was interrupted by a crash, and what goes on in one turn", function()
    prepare(nil, CALL:format(1))
    host:send("A1", function(op) return op.kind == "http" end)
    host:crash()
    after(HOUR)
    assert.same({ "call failed", "reason failed" }, names(host:resume()))
    assert.is_true(host.ended.steps[1].called)

    prepare(nil, CALL:format(1))
    host.outside = function()
      after(HOUR)
      return { status = 200, headers = {}, body = "late" }
    end
    assert.same({ "call completed", "reason failed" }, names(host:send "A1"))
    assert.equal(1, #host.requests, "the step behind it does not begin")
  end)
end)

describe("a subflow in a branch", function()
  local function fork(more)
    load(([[ConversationStep { step_id = "note", step_type = "action", run = function() end,
        next_steps = { "both" } },
      ConversationStep { step_id = "both", step_type = "parallel", on_error = "ask",
        next_steps = { "ask" }, branches = {
          l = { ConversationStep { step_id = "l", step_type = "action", run = function() end } },
          r = { ConversationStep { step_id = "before", step_type = "action",
              run = function() end, next_steps = { "sub" } },
            ConversationStep { step_id = "sub", step_type = "subflow", flow = "call", %s } } } },]])
      :format(more) .. ask("ask", 'next_steps = { "end" }'), 'start_step = "note",', {
      flow("call", "call", [[ConversationStep { step_id = "call", step_type = "action",
        max_retries = 9, retry_delay = 3, next_steps = { "end" }, run = function(ctx)
          local answer, err = ctx:http { url = "http://x/" }
          return answer and answer.body, err
        end },]]) })
    return host
  end

  it("waits for no attempt beyond its time", function()
    fork "timeout = 5,"
    local began = host.now
    host.outside = function()
      return nil, { code = "http.connect", message = "no", retryable = true }
    end
    host:start()
    local steps = {}
    for i, step in ipairs(host:all "steps") do steps[i] = step.step_id .. " " .. step.status end
    assert.equal("note completed, both failed, l completed, before completed, call failed, "
      .. "call failed, sub failed", table.concat(steps, ", "))
    assert.equal(began + 5000, host.now)
    assert.equal("ask", host.ended.step)
  end)

  it("is the flow of its executions, and the flow around it that of the others", function()
    load([[ConversationStep { step_id = "outer", step_type = "subflow", flow = "both",
      next_steps = { "end" } },]], 'start_step = "outer",', { flow("both", "both",
      [[ConversationStep { step_id = "both", step_type = "parallel", next_steps = { "end" },
        branches = { l = { ConversationStep { step_id = "sub", step_type = "subflow",
          flow = "note" } } } },]]), flow("note", "note", [[ConversationStep { step_id = "note",
        step_type = "action", run = function() end, next_steps = { "end" } },]]) })
    local flows = {}
    for _, step in ipairs(host:start().steps) do flows[step.step_id] = step.flow end
    assert.same({ both = "both", note = "note", sub = "both" }, flows)
  end)

  it("has the numbers of its executions behind those of its branch", function()
    fork "undo = function() end,"
    host:start()
    local found = {}
    for _, step in ipairs(host:all "steps") do found[step.step_id] = step end
    assert.same({ 2, 5, 6, 5 }, { found.both.seq, found.call.seq, found.sub.seq, found.sub.first })
  end)
end)

describe("what a subflow step says of being undone", function()
  local BUY = flow("buy", "pay", [[ConversationStep { step_id = "pay", step_type = "action",
    run = function(ctx) return ctx:http { url = "http://x/" }.body end, next_steps = { "sure" } },]]
    .. ask("sure", 'next_steps = { "end" }'),
    'interrupts = { { flow = "aside", phrases = { "hm" } } },')
  local ASIDE = flow("aside", "look", [[ConversationStep { step_id = "look", step_type = "action",
    run = function(ctx) return ctx:http { url = "http://y/" }.body end, next_steps = { "end" } },]])

  local function records(says)
    load(([[ConversationStep { step_id = "buy", step_type = "subflow", flow = "buy", %s
      next_steps = { "ask" } },]]):format(says) .. ask("ask", 'next_steps = { "end" }'),
      'start_step = "buy",', { BUY, ASIDE })
    host:start()
    host:send "hm"
    host:send "yes"
    local list = {}
    for _, step in ipairs(host:all "steps") do list[step.step_id] = step end
    return list
  end

  it("holds for what its flow calls: it may stay, but not what interrupts it", function()
    local steps = records "irreversible = false,"
    assert.same({ false, false, false, nil }, { steps.pay.irreversible, steps.sure.irreversible,
      steps.buy.irreversible, steps.look.irreversible })
    steps = records ""
    assert.same({ nil, nil }, { steps.pay.irreversible, steps.buy.irreversible })
    assert.same({ nil, true }, { steps.pay.aside, steps.look.aside })
  end)

  it("is known while a call of its flow is under way", function()
    load([[ConversationStep { step_id = "buy", step_type = "subflow", flow = "buy",
      irreversible = false, next_steps = { "end" } },]], 'start_step = "buy",', { BUY, ASIDE })
    host:start(nil, function(op) return op.kind == "http" end)
    assert.is_true(host.rows[1].runtime.stays)
    host:crash()
    host:resume()
  end)

  it("has with it which executions its undo takes back", function()
    local steps = records "undo = function() end,"
    assert.same({ 1, 1, 4, "main" }, { steps.pay.seq, steps.buy.first, steps.buy.seq,
      steps.buy.undo })
  end)

  it("takes back nothing that only asks, may stay, or has interrupted its flow", function()
    load([[ConversationStep { step_id = "buy", step_type = "subflow", flow = "look",
      undo = function() end, next_steps = { "ask" } },]] .. ask("ask", 'next_steps = { "end" }'),
      'start_step = "buy",', { ASIDE, flow("look", "see", [[ConversationStep { step_id = "see",
        step_type = "action", irreversible = false, next_steps = { "sure" },
        run = function(ctx) return ctx:http { url = "http://x/" }.body end },]]
        .. ask("sure", 'next_steps = { "note" }')
        .. [[ConversationStep { step_id = "note", step_type = "action", undo = function() end,
          run = function() end, next_steps = { "end" } },]],
        'interrupts = { { flow = "aside", phrases = { "hm" } } },') })
    host:start()
    host:send "hm"
    local steps = host:send("yes").steps
    assert.same({ "note", 4, "buy", 4 }, { steps[2].step_id, steps[2].seq, steps[3].step_id,
      steps[3].first })
  end)
end)

describe("a branch to a flow", function()
  it("runs it with what it knows by name, and goes on behind the step", function()
    load([[ConversationStep { step_id = "choose", step_type = "decision", condition = "kind",
      next_steps = { "after" },
      conditional_logic = { short = "flow:reason", default = "after" } },]]
      .. ask("after", 'next_steps = { "end" }'),
      'start_step = "choose", variables = { kind = "short", bonus = 2, order = { id = 1 } },',
      { REASON })
    local turn = host:start()
    assert.same({ "why", { bonus = 2, order = { id = 1 }, unset = false } },
      { turn.step, turn.runtime.state })
    turn = host:send "abc"
    assert.same({ "after", { kind = "short", bonus = 2, order = { id = 1 } } },
      { turn.step, turn.state })
    assert.same({ "why completed", "grade completed" }, names(turn))
  end)
end)

describe("a digression", function()
  local HELP = flow("help", "topic", ask("topic", 'next_steps = { "explain" }') .. [[
    ConversationStep { step_id = "explain", step_type = "agent_response", agent = clerk,
      response = "It is easy.", next_steps = { "end" } },]])
  local INTERRUPTS = [[interrupts = { { flow = "help", phrases = { "Help me", "hilfe" },
    condition = function(ctx) return ctx.input == "zz" .. tostring(ctx.state.lost or "") end } },]]

  local function begin(settings)
    load(ask("one", 'save_as = "one", next_steps = { "two" }')
      .. ask("two", 'save_as = "two", next_steps = { "end" }'),
      'start_step = "one",' .. INTERRUPTS .. (settings or ""), { HELP })
    return host:start()
  end

  it("begins with a phrase, and the prompt is repeated after it", function()
    begin()
    host:send "x"
    local turn = host:send " HELP me! "
    assert.same({ "topic", 1 }, { turn.step, turn.prompt.attempt })
    assert.same({ "user:  HELP me! ", "prompt: topic?" }, texts(turn))
    turn = host:send "colours"
    assert.same({ "user: colours", "agent: It is easy.", "prompt: one?" }, texts(turn))
    assert.same({ "one", 2, json.null, nil }, { turn.step, turn.prompt.attempt, turn.prompt.hint,
      turn.runtime.frames })
    assert.equal("two", host:send("first").step)
    assert.same({ one = "first", two = "second" }, host:send("second").state)
  end)

  it("begins by its condition, never within itself, and its time starts anew", function()
    begin "settings = { interaction_timeout = 60 },"
    assert.equal("topic", host:send("zz").step)
    host.now = host.now + 59000
    assert.equal("explain completed", names(host:send "hilfe")[2], "an answer to its own prompt")
    assert.equal(host.now + 60000, host.ended.prompt.expires_at)
    host.now = host.now + 60000
    assert.equal("expired", host:wake().status)
  end)

  it("that has asked something leaves a prompt to which one comes from there", function()
    begin()
    assert.equal(1, host.ended.runtime.wait.shown)
    host:send "hilfe"
    host:send "colours"
    assert.same({ "one", 1 }, { host.ended.step, host.ended.runtime.wait.shown })
  end)

  it("that fails gives way to what it interrupted", function()
    load(ask("one", 'save_as = "one", next_steps = { "end" }'), 'start_step = "one",' .. INTERRUPTS,
      { flow("help", "boom", [[ConversationStep { step_id = "boom", step_type = "action",
        run = function() error "no" end, next_steps = { "end" } },]]) })
    host:start()
    local turn = host:send "hilfe"
    assert.same({ "waiting_input", "one", "boom failed" }, { turn.status, turn.step,
      names(turn)[1] })
    assert.equal(2, turn.runtime.wait.shown, "the same prompt as before")
  end)

  it("works inside a sub-flow of the flow that has it", function()
    load([[ConversationStep { step_id = "sub", step_type = "subflow", flow = "reason",
      next_steps = { "end" } },]], 'start_step = "sub",' .. INTERRUPTS, { HELP, REASON })
    host:start()
    assert.equal("topic", host:send("hilfe").step)
    assert.equal("why", host:send("colours").step)
  end)
end)
