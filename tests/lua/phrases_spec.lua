-- What is a phrase of the flow, and what is an answer.
local Host = require "tests.lua.fake_host"
local json = require "host.json"
local task = require "tidemill.task"

local host

local ALL = "settings = { allow_step_skipping = true, allow_early_termination = true },"

local function begin(steps, flow)
  host = Host.new(Host.script(steps, 'start_step = "ask",' .. ALL .. (flow or "")))
  host:load()
  return host:start()
end

local function problem(flow)
  host = Host.new(Host.script([[ConversationStep { step_id = "ask", step_type = "user_input",
    prompt = "?", input_schema = { type = "text" }, next_steps = { "end" } },]],
    'start_step = "ask",' .. flow))
  local ok, err = pcall(host.load)
  return ok and "" or tostring(err)
end

after_each(function() assert.equal(0, task.count(), "a task was left behind") end)

local NOTE = [[ConversationStep { step_id = "ask", step_type = "user_input", prompt = "Note?",
  input_schema = { type = "text" }, save_as = "note", next_steps = { "end" } },]]

describe("a phrase", function()
  it("of nothing but punctuation is that, and no empty answer", function()
    for _, said in ipairs { "", "  ", "...", "!", "??", "? !" } do
      begin(NOTE, 'phrases = { help = { "?" }, cancel = { "!!" } },')
      local turn = host:send(said)
      assert.same({ "completed", said:find "%S" and said or "" }, { turn.status, turn.state.note },
        said)
    end
    begin(NOTE, 'phrases = { help = { "?" }, cancel = { "!!" } },')
    assert.matches("You can also say", host:send(" ? ").prompt.hint, 1, true)
    assert.equal("cancelled", host:send("!!").status)
  end)

  it("is no empty text", function()
    for _, flow in ipairs { 'phrases = { help = { " " } },',
      'interrupts = { { flow = "main", phrases = { "" } } },' } do
      assert.matches("an empty text is no phrase", problem(flow), 1, true)
    end
  end)

  it("is no long text", function()
    local flow = ('phrases = { help = { "%s" } },'):format(("x"):rep(2001))
    assert.matches("a phrase has at most 2000 bytes", problem(flow), 1, true)
  end)

  it("gives way to an option of the prompt, whatever punctuation either has", function()
    local choice = [[ConversationStep { step_id = "ask", step_type = "user_input", prompt = "What?",
      input_schema = { type = "choice", options = { "Stop!", { label = "What?", value = "Why?" },
        { label = "Second", value = 2 } } }, save_as = "said", next_steps = { "end" } },]]
    local words = 'phrases = { cancel = { "stop" }, help = { "what", "why" }, restart = { "2" } },'
    for said, value in pairs { ["Stop!"] = "Stop!", stop = "Stop!", ["What?"] = "Why?",
      ["Why?"] = "Why?", ["2"] = 2 } do
      begin(choice, words)
      local turn = host:send(said)
      assert.same({ "completed", value }, { turn.status, turn.state and turn.state.said }, said)
    end
  end)

  it("gives way to an option of the field that is asked for, and of no other", function()
    begin([[ConversationStep { step_id = "ask", step_type = "user_input", prompt = "Form?",
      input_schema = { type = "structured", fields = {
        { name = "a", type = "text", prompt = "A?" },
        { name = "b", type = "choice", options = { "Restart", "Help" }, prompt = "B?" } } },
      save_as = "form", next_steps = { "end" } },]],
      'phrases = { restart = { "restart" }, help = { "help" } },')
    assert.matches("You can also say", host:send("Help").prompt.hint, 1, true)
    host:send "x"
    assert.same({ a = "x", b = "Help" }, host:send("help").state.form)
  end)

  it("of a flow that interrupts gives way likewise", function()
    local other = [[tm.ConversationFlow { flow_id = "other", start_step = "o", steps = {
      ConversationStep { step_id = "o", step_type = "user_input", prompt = "Other?",
        input_schema = { type = "text" }, next_steps = { "end" } } } },]]
    local script = Host.script([[ConversationStep { step_id = "ask", step_type = "user_input",
      prompt = "Form?", input_schema = { type = "structured", fields = {
        { name = "b", type = "choice", options = { "Other?" } } } }, save_as = "form",
      next_steps = { "end" } },]],
      'start_step = "ask", interrupts = { { flow = "other", phrases = { "other", "?" } } },')
    local function load()
      host = Host.new((script:gsub("flows = {", "flows = { " .. other, 1)))
      host:load()
      host:start()
    end
    load()
    assert.same({ b = "Other?" }, host:send("Other").state.form)
    load()
    assert.same({ b = json.null }, host:send("").state.form)
    load()
    assert.equal("o", host:send("?").step)
  end)
end)

describe("a phrase, while somebody else than the user is waited for,", function()
  local WORDS = [[phrases = { cancel = { "stop" }, back = { "back" }, help = { "help" },
    restart = { "anew" }, correct = { "change {name} to {input}" } },]]
  local WAITS = {
    waiting_approval = 'step_type = "approval", role = "boss", timeout = 60, prompt = "Pay {n}?"',
    waiting_event = 'step_type = "wait", event = "paid"',
    sleeping = 'step_type = "wait", seconds = 60',
  }

  local function reach(fields, settings)
    host = Host.new(Host.script(([[
      ConversationStep { step_id = "ask", step_type = "user_input", prompt = "How many?",
        input_schema = { type = "integer" }, save_as = "n", next_steps = { "again" } },
      ConversationStep { step_id = "again", step_type = "user_input", prompt = "How many?",
        input_schema = { type = "integer" }, save_as = "m", next_steps = { "hold" } },
      ConversationStep { step_id = "hold", next_steps = { "end" }, %s },]]):format(fields),
      'start_step = "ask",' .. (settings or ALL) .. WORDS))
    host:load()
    host:start()
    host:send "1"
    return host:send "2"
  end

  local function refused(said, code)
    local rows = #host.rows
    local turn = host:send(said)
    assert.same({ "fail", code, "conflict" },
      { turn.kind, turn.error and turn.error.code, turn.error and turn.error.status }, said)
    assert.equal(rows, #host.rows)
    return turn.error.message
  end

  it("is the command", function()
    for status, fields in pairs(WAITS) do
      assert.equal(status, reach(fields).status)
      local turn = host:send "Stop!"
      assert.same({ "cancelled", "user", "Stop!" }, { turn.status, turn.messages[1].role,
        turn.messages[1].text })
      reach(fields)
      assert.same({ kind = "rollback", back = 1 }, host:send "back")
      assert.equal("ask", host:send("anew").step)
    end
  end)

  it("changes an answer", function()
    for status, fields in pairs(WAITS) do
      reach(fields)
      local turn = host:send "change n to 7"
      assert.same({ status, "hold", 7, "change n to 7" }, { turn.status, turn.step, turn.state.n,
        turn.messages[1].text })
    end
  end)

  it("that is refused is an error, for there is no prompt", function()
    for _, fields in pairs(WAITS) do
      reach(fields, "")
      assert.matches("cannot be ended here", refused("stop", "command.refused"), 1, true)
      assert.matches("no question to help with", refused("help", "command.refused"), 1, true)
      assert.matches("This could mean", refused("change how many to 7", "command.refused"), 1, true)
      refused("change n to many", "command.refused")
      host.refuses = { code = "rollback.disabled", message = "no way back" }
      refused("back", "rollback.disabled")
    end
  end)

  it("is not what the host takes no command in, nor is any other text", function()
    for _, fields in pairs(WAITS) do
      reach(fields)
      for _, said in ipairs { "yes", "change it to 7", "" } do
        refused(said, "conversation.not_waiting")
      end
      host:signal "pause"
      refused("stop", "conversation.not_waiting")
    end
    reach(WAITS.waiting_approval)
    host.now = host.now + 60000
    assert.matches("the time of the step 'hold' is over",
      refused("stop", "conversation.not_waiting"), 1, true)
  end)
end)

describe("a phrase of correct", function()
  local STEPS = [[
    ConversationStep { step_id = "ask", step_type = "user_input", prompt = "Order number?",
      input_schema = { type = "text", pattern = "^[^a-z]" }, save_as = "order_id",
      next_steps = { "ask_size" } },
    ConversationStep { step_id = "ask_size", step_type = "user_input", prompt = "Where to ship to?",
      input_schema = { type = "text" }, save_as = "place", next_steps = { "form" } },
    ConversationStep { step_id = "form", step_type = "user_input", prompt = "Form?",
      input_schema = { type = "structured", fields = {
        { name = "n", type = "integer", prompt = "How many?" },
        { name = "extra", type = "text", prompt = "What else?" } } },
      save_as = "form", next_steps = { "look" } },
    ConversationStep { step_id = "look", step_type = "action", irreversible = true,
      run = function(ctx) return ctx.state.form.extra .. ctx.state.form.n end,
      next_steps = { "last" } },
    ConversationStep { step_id = "last", step_type = "user_input", prompt = "{order_id}?",
      input_schema = { type = "text" }, save_as = "last", next_steps = { "end" } },]]
  local CHANGE = [[phrases = { help = { "change" },
    correct = { "Change {name} to {input}.", "set {input} as {name}, please!" } },]]

  local function filled(flow)
    begin(STEPS, flow or CHANGE)
    host:send "A1"
    host:send "Rome"
    host:send { n = 2, extra = "cake" }
    assert.equal("last", host.ended.step)
  end

  it("changes an answer by its name, and keeps what was said as it was said", function()
    for said, order in pairs { ["change order_id to B7"] = "B7", ["CHANGE Order ID TO B7 To"] =
      "B7 To", ["  change  ASK  to  X to y!  "] = "X to y!", ["set Z. as order id, PLEASE?"] = "Z.",
      ["Change order number? to Łódź İ"] = "Łódź İ" } do
      filled()
      local turn = host:send(said)
      assert.same({ "last", order, order .. "?" }, { turn.step, turn.state.order_id,
        turn.prompt.text }, said)
      assert.same({ "user", said }, { turn.messages[1].role, turn.messages[1].text })
      assert.equal("ask", turn.steps[1].step_id)
      assert.equal("completed", host:send("thanks").status)
    end
  end)

  it("finds the longest name that there is", function()
    for said, place in pairs { ["change where to ship to to Oslo"] = "Oslo",
      ["change place to Oslo to go"] = "Oslo to go", ["set Oslo as it is as place, please"] =
      "Oslo as it is" } do
      filled()
      assert.equal(place, host:send(said).state.place, said)
    end
  end)

  it("is an answer when nothing is called so, or nothing is left", function()
    for _, said in ipairs { "change it to blue", "change place to ", "change place to", "change to",
      "change  to blue", "exchange place to Oslo", "change " .. ("a"):rep(201) .. " to b",
      "change place to " .. ("a"):rep(4001), "set Oslo as place", "change placeto Oslo" } do
      filled()
      assert.same({ "completed", said }, { host:send(said).status, host.ended.state.last })
    end
  end)

  it("looks at a long answer once", function()
    filled()
    local said = "change " .. (" to "):rep(250000)
    assert.equal(said, host:send(said).state.last)
  end)

  it("names a field of the form that is begun before any other answer", function()
    begin(STEPS, CHANGE)
    host:send "A1"
    host:send "Rome"
    host:send "2"
    local turn = host:send "change how many to 3"
    assert.same({ "form", "What else?", { n = 3 } }, { turn.step, turn.prompt.text,
      turn.runtime.wait.partial })
    assert.same({ "How many?: Please answer with a whole number, such as 12.", { n = 3 } },
      { host:send("change N to x").prompt.hint, host.ended.runtime.wait.partial })
    assert.same({ "form", "B2", { n = 3 } }, { host:send("change order id to B2").step,
      host.ended.state.order_id, host.ended.runtime.wait.partial })
  end)

  it("is refused where the user is, with the reason", function()
    filled()
    local asked = host.ended.runtime.wait.asked
    for said, reason in pairs {
      ["change order id to b"] = "^'order_id' stays as it was%. .*expected form",
      ["change n to 3"] = "^'n' stays as it was: .*cannot be taken back: look%.$",
    } do
      local rows = #host.rows
      local turn = host:send(said)
      assert.same({ "waiting_input", "last", 1, asked }, { turn.status, turn.step,
        turn.prompt.attempt, turn.runtime.wait.asked })
      assert.matches(reason, turn.prompt.hint)
      assert.same({ "user", said }, { turn.messages[1].role, turn.messages[1].text })
      assert.equal(rows + 1, #host.rows)
    end
    host.refuses = { code = "command.refused", message = "conversation c1 has none" }
    assert.equal("'last' stays as it was: it was not answered yet, or too long ago.",
      host:send("change last to x").prompt.hint)
    host:signal("command", { command = "correct", name = "last", input = "x" })
    assert.same({ "fail", "command.refused", "conversation c1 has none" },
      { host.ended.kind, host.ended.error.code, host.ended.error.message })
  end)

  it("is refused where a failed step waits, and inside another flow", function()
    local script = Host.script([[ConversationStep { step_id = "ask", step_type = "user_input",
      prompt = "A?", input_schema = { type = "text" }, save_as = "a", next_steps = { "sub" } },
      ConversationStep { step_id = "sub", step_type = "subflow", flow = "inner",
        next_steps = { "end" } },]], 'start_step = "ask",' .. CHANGE)
    script = script:gsub("flows = {", [[
      orchestrator = { error_config = { auto_recovery = true } }, flows = {
      tm.ConversationFlow { flow_id = "inner", start_step = "b", steps = {
        ConversationStep { step_id = "b", step_type = "user_input", prompt = "B?",
          input_schema = { type = "text" }, next_steps = { "boom" } },
        ConversationStep { step_id = "boom", step_type = "action", next_steps = { "end" },
          run = function() error("odd") end } } },]], 1)
    host = Host.new(script)
    host:load()
    host:start()
    host:send "x"
    assert.matches("'a' stays as it was: answers cannot be corrected inside the flow 'inner'",
      host:send("change a to y").prompt.hint, 1, true)
    assert.equal("boom", host:send("z").step)
    assert.matches("'a' stays as it was: ", host:send("change a to y").prompt.hint, 1, true)
  end)

  it("asks which one is meant", function()
    begin([[ConversationStep { step_id = "ask", step_type = "user_input", prompt = "Name?",
      input_schema = { type = "text" }, save_as = "yours", next_steps = { "other" } },
      ConversationStep { step_id = "other", step_type = "user_input", prompt = "Name?",
        input_schema = { type = "text" }, save_as = "theirs", next_steps = { "last" } },
      ConversationStep { step_id = "last", step_type = "user_input", prompt = "Last?",
        input_schema = { type = "text" }, next_steps = { "end" } },]], CHANGE)
    host:send "Ann"
    host:send "Bob"
    assert.equal("This could mean 'ask', 'other'; please say which one.",
      host:send("change name to Cy").prompt.hint)
    assert.equal("Cy", host:send("change theirs to Cy").state.theirs)
  end)

  it("gives way to an option, and follows the language", function()
    begin([[ConversationStep { step_id = "ask", step_type = "user_input", prompt = "A?",
      input_schema = { type = "text" }, save_as = "a", next_steps = { "what" } },
      ConversationStep { step_id = "what", step_type = "user_input", prompt = "What?",
        input_schema = { type = "choice", options = { "Change a to b", "No" } }, save_as = "what",
        next_steps = { "end" } },]], CHANGE)
    host:send "x"
    assert.equal("Change a to b", host:send("change a to b").state.what)
    local german = [[phrases = { de = { correct = { "{name} ist {input}" } },
      en = { correct = { "{name} is {input}" } } },]]
    for language, said in pairs { de = "Ort ist Bonn", en = "Ort is Bonn" } do
      local script = Host.script(STEPS:gsub("place", "ort"), 'start_step = "ask",' .. german)
      host = Host.new((script))
      host:load()
      host:start { metadata = { language = language } }
      host:send "A1"
      host:send "Rom"
      assert.equal("Bonn", host:send(said).state.ort)
      assert.equal("Bonn", host:send("ort was Köln").state.ort)
    end
  end)

  it("needs both holes, and a word between them", function()
    for phrase, reason in pairs { ["change it to {input}"] = "must have the hole {name} once",
      ["change {name}"] = "must have the hole {input} once",
      ["{name} {name} to {input}"] = "must have the hole {name} once",
      ["change {name} {input}"] = "needs a word between its two holes",
      ["change {name}{input}"] = "needs a word between its two holes",
      ["change {name} to {input} {now}"] = "no other brace" } do
      assert.matches(reason, problem(("phrases = { correct = { %q } },"):format(phrase)), 1, true)
    end
    assert.equal("", problem 'phrases = { correct = { "{Name}: {input}" } },')
  end)
end)
