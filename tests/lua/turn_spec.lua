-- The engine: whole turns against a journal in memory.
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

local SHOP = [[
  ConversationStep { step_id = "welcome", step_type = "agent_response", agent = clerk,
    prompt = "Welcome the user.", response = "Hello {user_id|stranger}!", next_steps = { "ask" } },
  ConversationStep { step_id = "ask", step_type = "user_input",
    prompt = "Which colour, {user_id|you}?",
    input_schema = { type = "choice", options = { "Red", "Green" }, required = true },
    save_as = "colour", next_steps = { "paint" } },
  ConversationStep { step_id = "paint", step_type = "action", save_as = "result",
    run = function(ctx)
      ctx.state.count = (ctx.state.count or 0) + 1
      return { painted = ctx.state.colour }
    end, next_steps = { "more" } },
  ConversationStep { step_id = "more", step_type = "user_input",
    prompt = "{result.painted} it is. Again?", input_schema = { type = "boolean", required = true },
    save_as = "again", next_steps = { "ask", "bye" },
    conditional_logic = { condition = "again", [true] = "ask", [false] = "bye" } },
  ConversationStep { step_id = "bye", step_type = "agent_response", agent = clerk,
    response = "Painted {count} times.", next_steps = { "ask" } },
]]
local SHOP_FLOW = 'start_step = "welcome", end_steps = { "bye" }, '

describe("a conversation", function()
  it("starts: opens the transcript, runs until a step waits, asks", function()
    load_flow(SHOP, SHOP_FLOW .. "settings = { interaction_timeout = 60 },")
    local turn = host:start { message = "Hi there", user_id = "ada", metadata = { tier = 1 } }
    assert.same({ "waiting_input", "ask", host.now + 60000 }, { turn.status, turn.step,
      turn.wake_at })
    assert.same({
      { seq = 1, role = "user", text = "Hi there" },
      { seq = 2, role = "agent", text = "Hello ada!", agent = "clerk", provider = "offline",
        step_id = "welcome" },
      { seq = 3, role = "prompt", text = "Which colour, ada?", step_id = "ask" },
    }, turn.messages)
    assert.same({ { seq = 1, step_id = "welcome", type = "agent_response", agent = "clerk",
      attempt = 1, reply = 2, start = host.now, ["end"] = host.now,
      status = "completed" } }, turn.steps)
    assert.same({ step_id = "ask", text = "Which colour, ada?", attempt = 1, hint = json.null,
      expires_at = host.now + 60000, input_schema = { type = "choice", required = true,
        options = { { label = "Red", value = "Red" }, { label = "Green", value = "Green" } } } },
      turn.prompt)
    assert.equal(1, #host.rows, "a pure turn commits once")
  end)

  it("asks again with reason and attempt, without consuming the step", function()
    load_flow(SHOP, SHOP_FLOW)
    host:start()
    local turn = host:send "blue"
    assert.same({ "waiting_input", "ask", 0 }, { turn.status, turn.step, turn.wake_at })
    assert.same({ 2, "Please choose one of: 'Red', 'Green'.", "Which colour, you?" },
      { turn.prompt.attempt, turn.prompt.hint, turn.prompt.text })
    assert.same({}, turn.steps)
    assert.same({ "user", "prompt" }, { turn.messages[1].role, turn.messages[2].role })
    host.now = host.now + 5000
    turn = host:send "gr"
    assert.equal("Green", turn.state.colour)
    local asked = turn.steps[1]
    assert.same({ 2, 2, "gr", "Green", 5000 }, { asked.seq, asked.attempt, asked.input,
      asked.output, asked["end"] - asked.start })
    assert.equal(1, turn.prompt.attempt)
  end)

  it("loops, leaves every pass in the journal, and completes after an end step", function()
    load_flow(SHOP, SHOP_FLOW)
    host:start()
    host:send "Red"
    host:send "yes"
    host:send "2"
    local turn = host:send "no"
    assert.same({ "completed", "", 0 }, { turn.status, turn.step, turn.wake_at })
    assert.is_nil(turn.prompt)
    assert.equal("welcome ask paint more ask paint more bye", host:path())
    for i, step in ipairs(host:all "steps") do assert.equal(i, step.seq) end
    for i, message in ipairs(host:all "messages") do assert.equal(i, message.seq) end
    assert.equal("Painted 2 times.", turn.messages[#turn.messages].text)
    assert.same({ count = 2, colour = "Green", again = false, result = { painted = "Green" } },
      turn.state)
  end)

  it("refuses a message when it does not wait", function()
    load_flow(SHOP, SHOP_FLOW)
    host:start()
    host.record.status = "completed"
    local turn = host:send "Red"
    assert.same({ "fail", "conversation.not_waiting", "conflict" },
      { turn.kind, turn.error.code, turn.error.status })
    host.flow_id = "other"
    assert.same({ "flow.not_found", "not_found" },
      { host:start().error.code, host.ended.error.status })
    local told = host.logs[#host.logs]
    assert.same({ "info", "flow.not_found" }, { told.level, told.fields.code },
      "who is refused has done nothing that an operator must see to")
  end)

  it("refuses a kind of turn that it does not know, and leaves everything as it was", function()
    load_flow(SHOP, SHOP_FLOW)
    host:start()
    local rows = #host.rows
    local turn = host:signal("nonsense", { command = "back" })
    assert.same({ "fail", "turn.unsupported", "unsupported" },
      { turn.kind, turn.error.code, turn.error.status })
    assert.equal(rows, #host.rows)
    assert.equal("Green", host:send("Green").state.colour)
  end)

  it("keeps variables, each conversation its own", function()
    load_flow(SHOP, SHOP_FLOW .. [[variables = { list = { 1 }, n = 5, empty = tm.array {},
      limit = { type = "integer", default = 3 }, later = { type = "text" } },]])
    assert.same({ list = { 1 }, n = 5, empty = {}, limit = 3 }, host:start().state)
    assert.equal('{"empty":[],"limit":3,"list":[1],"n":5}', json.encode(host.record.state))
  end)
end)

describe("branches", function()
  local function decide(logic, run, more)
    load_flow(([[
      ConversationStep { step_id = "act", step_type = "action", run = %s, save_as = "kind",
        next_steps = { "a", "b" }, conditional_logic = { %s }, %s },
      ConversationStep { step_id = "a", step_type = "agent_response", agent = clerk, response = "A",
        next_steps = { "end" } },
      ConversationStep { step_id = "b", step_type = "agent_response", agent = clerk, response = "B",
        next_steps = { "end" } },]]):format(run, logic, more or ""),
      'start_step = "act", variables = { stored = "two", deep = { x = 1 } },')
    local turn = host:start()
    return host:path(), turn.error and turn.error.message, turn.error and turn.error.code
  end

  it("look at this pass's output, then at state", function()
    assert.equal("act b", decide('condition = "kind", one = "a", two = "b"',
      'function() return "two" end'))
    assert.equal("act b", decide('condition = "size", big = "b", default = "a"',
      'function() return { size = "big" } end'))
    assert.equal("act b", decide('condition = "stored", one = "a", two = "b"', "function() end"))
    assert.equal("act b", decide('condition = "deep.x", [1] = "b", default = "a"',
      "function() end"))
    assert.equal("act b", decide('condition = "output", [true] = "b", default = "a"',
      "function() return true end"))
  end)

  it("ask a function, which sees what the step saved and may not write", function()
    assert.equal("act b", decide([[condition = function(ctx)
      return ctx.state.kind == "x" and ctx.output == "x" and "two" end, two = "b", default = "a"]],
      'function() return "x" end'))
    local path, message, _ = decide([[condition = function(ctx) ctx.state.deep.x = 2 end,
      default = "a"]], 'function() return "x" end')
    assert.equal("act!", path)
    assert.matches("ctx.state.x cannot be written here", message, 1, true)
    assert.is_nil(host.record.state.kind, "a failed attempt leaves no trace")
    _, message = decide([[condition = function(ctx) return ctx:http { url = "http://x" } end,
      default = "a"]], "function() end")
    assert.matches("ctx:http cannot be used in a condition", message, 1, true)
    assert.equal(0, #host.requests)
  end)

  it("take the default, or say what was declared", function()
    assert.equal("act a", decide('condition = "kind", two = "b", default = "a"',
      'function() return "?" end'))
    assert.equal("act a", decide('condition = "unknown", two = "b", default = "a"',
      "function() end"))
    local path, message, _ = decide('condition = "kind", one = "a", two = "b"',
      'function() return "?" end')
    assert.equal("act!", path)
    assert.equal("the outcome '?' of 'act' has no branch and there is no default; "
      .. "declared are: one, two", message)
    local code
    _, message, code = decide('condition = "unknown", one = "a", two = "b"', "function() end")
    assert.equal("branch.unknown_name", code)
    assert.matches("names 'unknown', which is neither this step's output nor in state", message, 1,
      true)
    _, message = decide('condition = "deep", one = "a", two = "b"', "function() end")
    assert.matches("gave a table", message, 1, true)
  end)

  it("of a choice know custom answers", function()
    local steps = [[
      ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?", save_as = "mood",
        input_schema = { type = "choice", allow_custom_response = true,
          options = { { label = "Good", value = "good" }, { label = "Bad", value = "bad" } } },
        next_steps = { "a", "b" },
        conditional_logic = { condition = "mood", good = "a", custom = "b", default = "a" } },
      ConversationStep { step_id = "a", step_type = "agent_response", agent = clerk, response = "A",
        next_steps = { "end" } },
      ConversationStep { step_id = "b", step_type = "agent_response", agent = clerk,
        response = "You said {mood}", next_steps = { "end" } },]]
    load_flow(steps, 'start_step = "ask",')
    host:start()
    assert.equal("You said so so", host:send("so so").messages[2].text)
    load_flow(steps, 'start_step = "ask",')
    host:start()
    host:send "GOOD"
    assert.equal("ask a", host:path())
  end)

  it("are decided by decision steps, without or with conditional_logic", function()
    local rest = [[
      ConversationStep { step_id = "a", step_type = "agent_response", agent = clerk, response = "A",
        next_steps = { "end" } },
      ConversationStep { step_id = "b", step_type = "agent_response", agent = clerk,
        response = "{picked}",
        next_steps = { "end" } },]]
    load_flow([[ConversationStep { step_id = "pick", step_type = "decision", save_as = "picked",
      condition = function(ctx) return ctx.state.n > 1 and "b" or "a" end,
      next_steps = { "a", "b" } },]] .. rest, 'start_step = "pick", variables = { n = 2 },')
    local turn = host:start()
    assert.equal("pick b", host:path())
    assert.same({ "b", "b" }, { turn.steps[1].output, turn.messages[1].text })
    load_flow([[ConversationStep { step_id = "pick", step_type = "decision", condition = "n",
      next_steps = { "a", "b" }, conditional_logic = { [2] = "b", default = "a" } },]] .. rest,
      'start_step = "pick", variables = { n = 2, picked = "x" },')
    host:start()
    assert.equal("pick b", host:path())
  end)

  it("are chosen by the agent with classify, offline by its outcome rules", function()
    local function classify(outcome, said)
      load_flow(([[
        ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?",
          input_schema = { type = "text" }, save_as = "request", next_steps = { "look" } },
        ConversationStep { step_id = "look", step_type = "agent_response", agent = clerk,
          response = "I see.", next_steps = { "a", "b" }, outcome = %s,
          conditional_logic = { condition = "kind", classify = true, simple = "a",
            complex = "b" } },
        ConversationStep { step_id = "a", step_type = "agent_response", agent = clerk,
          response = "A",
          next_steps = { "end" } },
        ConversationStep { step_id = "b", step_type = "agent_response", agent = clerk,
          response = "B",
          next_steps = { "end" } },]]):format(outcome), 'start_step = "ask",')
      host:start()
      host:send(said)
      return host:path()
    end
    local rules = [[{ { contains = { "broken", "REFUND" }, outcome = "complex" },
      { from = "request", longer_than = 20, outcome = "complex" },
      { matches = "^%d+$", outcome = "complex" }, { equals = "help!", outcome = "complex" },
      default = "simple" }]]
    for _, said in ipairs { "It is Broken", "a refund please", ("x"):rep(21), "123", " Help! " } do
      assert.equal("ask look b", classify(rules, said), said)
    end
    assert.equal("ask look a", classify(rules, "hello"))
    assert.equal("ask look b", classify('"complex"', "hello"))
    assert.equal("ask look b", classify([[function(ctx)
      return #ctx.input > 3 and "complex" or "simple" end]], "hello"))
    assert.equal("ask look!", classify('{ { equals = "x", outcome = "simple" } }', "hello"))
    assert.matches("the outcome %(none%) of 'look' has no branch", host.ended.error.message)
  end)
end)

describe("what a step keeps", function()
  local function collect(schema, metadata, answer)
    load_flow(([[
      ConversationStep { step_id = "ask", step_type = "user_input", prompt = "Tell me.",
        input_schema = %s, metadata = %s, next_steps = { "end" } },]]):format(schema, metadata),
      'start_step = "ask",')
    host:start()
    host:send(answer)
    return host.record.state
  end

  it("is named by data_collection", function()
    assert.same({ request = "help" }, collect('{ type = "text" }',
      '{ data_collection = { "request" } }', "help"))
    local form = [[{ type = "structured", fields = { { name = "timeline", type = "text" },
      { name = "budget", type = "integer" } } }]]
    assert.same({ timeline = "now", budget = 5 }, collect(form,
      '{ data_collection = { "timeline", "budget" } }', { timeline = "now", budget = "5" }))
    assert.same({ timeline = "now", budget = 5, needs = { timeline = "now", budget = 5 } },
      collect(form, '{ data_collection = { "needs", "budget" } }', { timeline = "now",
        budget = "5" }))
    assert.same({}, collect('{ type = "text" }', "{}", "help"))
  end)

  it("of a structured input is asked for field by field, durably", function()
    load_flow([[
      ConversationStep { step_id = "ask", step_type = "user_input", prompt = "Some details.",
        input_schema = { type = "structured", fields = {
          { name = "what", type = "text", required = true, prompt = "What?" },
          { name = "many", type = "integer", required = true, prompt = "How many?" } } },
        save_as = "order", next_steps = { "end" } },]], 'start_step = "ask",')
    assert.equal("Some details.\nWhat?", host:start().prompt.text)
    local turn = host:send "boats"
    assert.same({ "How many?", 1, json.null, "many" }, { turn.prompt.text, turn.prompt.attempt,
      turn.prompt.hint, turn.prompt.input_schema.next })
    turn = host:send "few"
    assert.same({ "How many?", 2 }, { turn.prompt.text, turn.prompt.attempt })
    assert.matches("How many%?: Please answer with a whole number", turn.prompt.hint)
    turn = host:send "3"
    assert.same({ "completed", { order = { what = "boats", many = 3 } } }, { turn.status,
      turn.state })
    assert.is_nil(turn.runtime.partial)
  end)

  it("shares no table with the script", function()
    load_flow([[ConversationStep { step_id = "a", step_type = "action", next_steps = { "b" },
        run = function(ctx) ctx.state.cart = empty end },
      ConversationStep { step_id = "b", step_type = "action", next_steps = { "ask" },
        run = function(ctx) ctx.state.cart[1] = "boat" ctx.state.other = #empty end },
      ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?",
        input_schema = { type = "text" }, next_steps = { "a" } },]], 'start_step = "a",',
      "local empty = {}")
    assert.same({ cart = { "boat" }, other = 0 }, host:start().state)
  end)

  it("of a satisfaction_check is the conversation's feedback, and labels are in the journal",
    function()
      load_flow([[ConversationStep { step_id = "ask", step_type = "user_input", prompt = "Content?",
        input_schema = { type = "text" }, next_steps = { "end" },
        metadata = { satisfaction_check = true, step_category = "c",
          solution_type = "direct" } },]],
        'start_step = "ask",')
      assert.is_nil(host:start().runtime.feedback)
      local turn = host:send(("ä"):rep(2000))
      assert.equal(("ä"):rep(1000) .. "…", turn.runtime.feedback)
      assert.same({ "c", "direct" }, { turn.steps[1].step_category, turn.steps[1].solution_type })
    end)

  it("that is an outcome must be a short text", function()
    for _, outcome in ipairs { [["\255"]], [[("x"):rep(1000)]], "{}", "print2" } do
      load_flow(([[ConversationStep { step_id = "pick", step_type = "decision",
        next_steps = { "end" }, conditional_logic = { default = "end",
          condition = function() return %s end } },]]):format(outcome), 'start_step = "pick",',
        "local print2 = function() end")
      local turn = host:start()
      assert.same({ "failed", "branch.outcome" }, { turn.status, turn.error.code })
    end
  end)

  it("may be long where its condition names it and has a default", function()
    for _, default in ipairs { 'default = "end"', "" } do
      load_flow(([[ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?",
        input_schema = { type = "text" }, save_as = "said", next_steps = { "ask", "end" },
        conditional_logic = { condition = "said", again = "ask", %s } },]]):format(default),
        'start_step = "ask",')
      host:start()
      assert.equal("waiting_input", host:send("again").status)
      local turn = host:send(("x"):rep(257))
      assert.equal(default == "" and "failed" or "completed", turn.status)
    end
  end)

  it("must have the declared type", function()
    load_flow([[ConversationStep { step_id = "act", step_type = "action", save_as = "n",
      run = function() return "many" end, next_steps = { "end" } },]],
      'start_step = "act", variables = { n = { type = "integer", default = 1 } },')
    local turn = host:start()
    assert.same({ "failed", "state.type", { n = 1 } }, { turn.status, turn.error.code, turn.state })
  end)

  it("must be there before a step that requires it", function()
    load_flow([[ConversationStep { step_id = "act", step_type = "action", run = function() end,
      metadata = { required_context = { "order", "who.name" } }, next_steps = { "end" } },]],
      'start_step = "act", settings = { max_retries = 3 },')
    local turn = host:start()
    assert.same({ "failed", "step.missing_context" }, { turn.status, turn.error.code })
    assert.matches("the step 'act' needs order, who.name in state", turn.error.message, 1, true)
    assert.equal("act!", host:path(), "what cannot succeed is not tried again")
  end)

  it("must be keepable, else the step fails with the key path and leaves no trace", function()
    for code, message in pairs {
      ["ctx.state.a = { { f = function() end } }"] = "ctx.state.a[1].f: a function cannot be kept",
      ["ctx.state.x = 0 / 0"] = "ctx.state.x: NaN cannot be kept",
      ["ctx.state.t = { 1, nil, 3, k = 1 }"] = "ctx.state.t: a table that is both",
      ["ctx.state = 5"] = "ctx.state must stay a table",
      ["ctx.state = { 1, 2 }"] = "ctx.state must be a table of names",
      ["ctx.state.o = setmetatable({}, { __index = { a = 1 } })"] = "ctx.state.o: a table whose",
      ["ctx.state.s = '\\255'"] = "ctx.state.s: text that is not valid UTF-8",
      ["ctx.state.me = ctx.state"] = "nested deeper than 64 levels, or in a circle",
    } do
      load_flow(([[ConversationStep { step_id = "act", step_type = "action", next_steps = { "end" },
        run = function(ctx) ctx.state.deep.n = 2; %s end },]]):format(code),
        'start_step = "act", variables = { deep = { n = 1 } },')
      local turn = host:start()
      assert.same({ "failed", "state.invalid" }, { turn.status, turn.error.code })
      assert.matches(message, turn.error.message, 1, true)
      assert.same({ deep = { n = 1 } }, turn.state)
    end
  end)

  it("may be a whole new state", function()
    load_flow([[ConversationStep { step_id = "act", step_type = "action", next_steps = { "end" },
      run = function(ctx) ctx.state = { fresh = true, none = tm.null, list = tm.array {} } end },]],
      'start_step = "act", variables = { old = 1 },')
    host:start()
    assert.equal('{"fresh":true,"list":[],"none":null}', json.encode(host.record.state))
  end)
end)

describe("agents", function()
  local function custom(respond, step, config)
    load_flow(([[ConversationStep { step_id = "talk", step_type = "agent_response", agent = "bot",
      prompt = "Talk to {user_id|somebody}", next_steps = { "end" }, %s },]]):format(step or ""),
      'start_step = "talk",', nil, (", bot = { respond = %s }"):format(respond), config)
    return host:start { message = "hi" }
  end

  it("of a script answer with a text or a table, and may write state", function()
    local turn = custom [[function(ctx, request)
      ctx.state.seen = request.input
      return request.prompt .. "!" end]]
    assert.same({ "completed", { seen = "hi" } }, { turn.status, turn.state })
    assert.same({ seq = 2, role = "agent", agent = "bot", step_id = "talk", provider = "custom",
      text = "Talk to somebody!" }, turn.messages[2])
    assert.equal("x", custom('function() return { text = "x" } end').messages[2].text)
  end)

  it("fail the step when they fail or answer nonsense", function()
    for respond, code in pairs {
      ['function() return nil, { code = "bot.busy", message = "later" } end'] = "bot.busy",
      ['function() return nil, "later" end'] = "script.error",
      ["function() return 5 end"] = "agent.reply", ["function() end"] = "agent.reply",
      ["function() return '\\255' end"] = "agent.reply",
      ["function() return { text = ('x'):rep(500) } end"] = "agent.too_large",
      ["function() return { text = 'x', outcome = 5 } end"] = "agent.outcome",
    } do
      local turn = custom(respond, nil, { output_limit = 400 })
      assert.same({ "failed", code, "talk" }, { turn.status, turn.error.code, turn.error.step_id })
      assert.equal(1, #turn.messages, "nothing is said by a failed step")
    end
  end)

  it("choose among the declared outcomes", function()
    local turn = custom([[function(ctx, request)
      return { text = table.concat(request.outcomes, " "), outcome = "yes" } end]],
      'conditional_logic = { classify = true, yes = "end", no = "end" }')
    assert.same({ "completed", "no yes" }, { turn.status, turn.messages[2].text })
    turn = custom('function() return { text = "x", outcome = "perhaps" } end',
      'conditional_logic = { classify = true, yes = "end", no = "end" }')
    assert.equal("branch.none", turn.error.code)
  end)

  it("without response say so offline, and never show the prompt", function()
    load_flow([[ConversationStep { step_id = "talk", step_type = "agent_response", agent = clerk,
      prompt = "Secret instructions", next_steps = { "end" } },]], 'start_step = "talk",')
    assert.equal("[offline] clerk has no response for the step 'talk'.",
      host:start().messages[1].text)
  end)

  it("fail on a prompt that names what nobody set", function()
    load_flow([[ConversationStep { step_id = "talk", step_type = "agent_response", agent = clerk,
      prompt = "About {topic}", response = "Fine", next_steps = { "end" } },]],
        'start_step = "talk",')
    local turn = host:start()
    assert.same({ "failed", "template.unknown_name" }, { turn.status, turn.error.code })
  end)
end)

describe("ctx", function()
  it("tells what a step needs to know", function()
    load_flow([[
      ConversationStep { step_id = "see", step_type = "action", next_steps = { "end" },
        run = function(ctx)
          ctx:log("hello", { n = 1 })
          ctx:log("warning", "careful")
          return { ctx.conversation_id, ctx.session.id, ctx.session.user_id,
            ctx.session.metadata.tier, ctx.input, ctx.now, ctx.step.id, ctx.step.attempt,
            ctx.step.seq }
        end },]], 'start_step = "see",')
    local turn = host:start { message = "hi", user_id = "ada", metadata = { tier = "gold" } }
    assert.same({ "c1", "s1", "ada", "gold", "hi", host.now, "see", 1, 1 }, turn.steps[1].output)
    assert.same({ "info", "hello", "1", "see" }, { host.logs[1].level, host.logs[1].message,
      host.logs[1].fields.n, host.logs[1].fields.step_id })
    assert.same({ "warning", "careful" }, { host.logs[2].level, host.logs[2].message })
  end)

  it("draws numbers that depend on conversation, step and position only", function()
    local function draw()
      load_flow([[ConversationStep { step_id = "draw", step_type = "action", next_steps = { "end" },
        run = function(ctx)
          return { ctx:random(6), ctx:random(10, 12), ctx:random(), ctx:random(1 << 40),
            ctx:random(1 << 40) }
        end },]], 'start_step = "draw",')
      return host:start().steps[1].output
    end
    local first = draw()
    assert.same(first, draw())
    assert.is_true(first[1] >= 1 and first[1] <= 6 and first[2] >= 10 and first[2] <= 12)
    assert.is_true(first[3] >= 0 and first[3] < 1)
    assert.are_not.equal(first[4], first[5])
  end)

  it("changes nothing through the session", function()
    load_flow([[ConversationStep { step_id = "see", step_type = "action", next_steps = { "end" },
      run = function(ctx)
        ctx.session.metadata.tier = "stolen"
        ctx.state.copy = ctx.session.metadata
      end },]], 'start_step = "see",')
    local turn = host:start { metadata = { tier = "gold" } }
    assert.same({ "gold", "stolen" }, { turn.runtime.metadata.tier, turn.state.copy.tier })
  end)
end)
