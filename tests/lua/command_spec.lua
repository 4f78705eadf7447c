-- What a user says about the conversation: skip, cancel, restart, help; by request and by phrase.
local Host = require "tests.lua.fake_host"
local json = require "host.json"
local task = require "tidemill.task"

local host

local STEPS = [[
  ConversationStep { step_id = "colour", step_type = "user_input", prompt = "Colour?",
    input_schema = { type = "choice", options = { "Red", "stop" }, required = true },
    save_as = "colour", next_steps = { "note" } },
  ConversationStep { step_id = "note", step_type = "user_input", prompt = "Note?",
    input_schema = { type = "number" }, save_as = "note", next_steps = { "form" } },
  ConversationStep { step_id = "form", step_type = "user_input", prompt = "Form?",
    input_schema = { type = "structured", fields = { { name = "a", type = "text" },
      { name = "b", type = "integer", prompt = "How many?" } } },
    save_as = "form", next_steps = { "ok" } },
  ConversationStep { step_id = "ok", step_type = "approval", role = "boss", prompt = "OK?",
    next_steps = { "end" } },]]

local function begin(flow, metadata)
  host = Host.new(Host.script(STEPS, 'start_step = "colour", variables = { n = 1 },'
    .. (flow or "")))
  host:load()
  return host:start { metadata = metadata }
end

local function say(name) return host:signal("command", { command = name }) end
local ALL = "settings = { allow_step_skipping = true, allow_early_termination = true },"

after_each(function() assert.equal(0, task.count(), "a task was left behind") end)

describe("a command", function()
  it("skips a question that needs no answer, where the flow allows it", function()
    begin(ALL)
    local turn = say "skip"
    assert.same({ "colour", 1, "This question cannot be skipped." },
      { turn.step, turn.prompt.attempt, turn.prompt.hint })
    host:send "Red"
    turn = say "skip"
    assert.same({ "form", json.null }, { turn.step, turn.state.note })
    assert.same({ "note", "completed" }, { turn.steps[1].step_id, turn.steps[1].status })
    turn = say "skip"
    assert.same({ "waiting_approval", { a = "", b = json.null } }, { turn.status, turn.state.form })
    begin()
    host:send "Red"
    assert.equal("This question cannot be skipped.", say("skip").prompt.hint)
  end)

  it("cancels where the flow allows it, also while somebody else is waited for", function()
    begin()
    local turn = say "cancel"
    assert.same({ "waiting_input", "colour" }, { turn.status, turn.step })
    assert.equal("The conversation cannot be ended here: the step 'colour' still needs an answer.",
      turn.prompt.hint)
    begin(ALL)
    turn = say "cancel"
    assert.same({ "cancelled", "", 0 }, { turn.status, turn.step, turn.wake_at })
    begin(ALL)
    host:send "Red"
    say "skip"
    say "skip"
    assert.equal("cancelled", say("cancel").status)
  end)

  it("that does not end a conversation is answered with what is missing", function()
    local function missing(steps, turns, config)
      host = Host.new(Host.script(steps, 'start_step = "a",'), config)
      host:load()
      host:start()
      for _, said in ipairs(turns or {}) do host:send(said) end
      local turn = say "cancel"
      if turn.error then
        assert.same({ "command.refused", "conflict" }, { turn.error.code, turn.error.status })
      end
      return (turn.error and turn.error.message or turn.prompt.hint):match "ended here: (.*)%.$"
    end
    local form = [[ConversationStep { step_id = "a", step_type = "user_input", prompt = "?",
      metadata = { allows_partial_completion = true }, input_schema = { type = "structured",
        fields = { { name = "p", type = "text", required = true }, { name = "q", type = "text" },
          { name = "r", type = "integer", required = true, prompt = "How many?" },
          { name = "s", type = "text" } } }, next_steps = { "end" } },]]
    assert.equal("the step 'a' still needs: p, How many?", missing(form))
    assert.equal("the step 'a' still needs: How many?", missing(form, { "x" }))
    assert.equal("the step 'a' still needs an answer", missing(form, { "x", "", "3" }))
    local step = 'ConversationStep { step_id = "a", %s, next_steps = { "end" } },'
    assert.equal("the step 'a' still needs the decision of the role 'boss'",
      missing(step:format 'step_type = "approval", role = "boss", prompt = "?"'))
    assert.equal("the step 'a' still waits for the event 'paid'",
      missing(step:format 'step_type = "wait", event = "paid"'))
    assert.equal("the step 'a' still waits for its time",
      missing(step:format 'step_type = "wait", seconds = 60'))
    assert.equal("the step 'a' has failed, and is to be run again",
      missing(step:format 'step_type = "action", run = function() error "no" end', nil,
        { auto_recovery = true }))
  end)

  it("goes back by the host, which knows what the flow allows", function()
    begin(ALL .. 'phrases = { back = { "zurück" } },')
    host:send "Red"
    assert.same({ kind = "rollback", back = 1 }, say "back")
    assert.same({ kind = "rollback", back = 1 }, host:send "Zurück!")
    assert.matches("say: cancel, restart, skip.", say("help").prompt.hint, 1, true)
    begin "settings = { enable_rollback = true },"
    assert.matches("say: back, restart.", say("help").prompt.hint, 1, true)
  end)

  it("goes back, or says why not where that is asked", function()
    local phrases = 'phrases = { back = { "zurück" } },'
    local reasons = {
      { "rollback.nothing", "There is no answer before this to go back to." },
      { "rollback.disabled", "One cannot go back in this conversation." },
      { "rollback.limit", "One cannot go back any further." },
      { "rollback.irreversible", "One cannot go back: these steps did it: pay." },
    }
    for _, reason in ipairs(reasons) do
      begin("settings = { interaction_timeout = 60 }," .. phrases)
      local at = host.ended.wake_at
      host.refuses = { code = reason[1], message = "these steps did it: pay; use force" }
      host.now = host.now + 1000
      local turn = host:send "zurück!"
      assert.same({ "waiting_input", "colour", 1, reason[2], at }, { turn.status, turn.step,
        turn.prompt.attempt, turn.prompt.hint, turn.prompt.expires_at })
      assert.same({ "user", "zurück!", reason[2] .. "\nColour?" }, { turn.messages[1].role,
        turn.messages[1].text, turn.messages[2].text })
      turn = say "back"
      assert.same({ reason[2], 3, nil }, { turn.prompt.hint, turn.runtime.wait.shown,
        turn.messages[2] })
      assert.equal("note", host:send("Red").step)
    end
  end)

  it("goes back, or is refused where nothing can be said", function()
    begin(ALL)
    host:send "Red"
    say "skip"
    say "skip"
    local rows = #host.rows
    host.refuses = { code = "rollback.irreversible", message = "no; do" }
    local turn = say "back"
    assert.same({ "fail", "rollback.irreversible", "no; do", "conflict" },
      { turn.kind, turn.error.code, turn.error.message, turn.error.status })
    assert.equal(rows, #host.rows)
  end)

  it("restarts from the beginning, with the state of a beginning", function()
    begin(ALL)
    host:send "Red"
    host:send "7"
    local turn = say "restart"
    assert.same({ "colour", { n = 1 }, 1 }, { turn.step, turn.state, turn.prompt.attempt })
    assert.equal("note", host:send("Red").step)
  end)

  it("helps: says what may be answered and said", function()
    begin()
    local turn = say "help"
    assert.same({ "colour", 1,
      "Please choose one of: 'Red', 'stop'. You can also say: restart." },
      { turn.step, turn.prompt.attempt, turn.prompt.hint })
    begin(ALL)
    host:send "Red"
    assert.matches("You can also say: cancel, restart, skip", say("help").prompt.hint, 1, true)
    say "skip"
    assert.matches("one after another: a, How many?", say("help").prompt.hint, 1, true)
  end)

  it("is refused where nobody is asked, or when it is not known", function()
    begin(ALL)
    host:send "Red"
    say "skip"
    say "skip"
    local rows = #host.rows
    for _, name in ipairs { "skip", "help" } do
      local turn = say(name)
      assert.same({ "fail", "command.refused", "conflict" },
        { turn.kind, turn.error.code, turn.error.status })
    end
    assert.equal("command.unsupported", say("dance").error.code)
    assert.equal(rows, #host.rows)
  end)

  it("is said by the phrases of the flow, which options are not", function()
    begin(ALL .. 'phrases = { cancel = { "Stop", "genug" }, help = { "?" } },')
    assert.equal("note", host:send("stop").step)
    local turn = host:send "  GENUG! "
    assert.same({ "cancelled", "  GENUG! " }, { turn.status, turn.messages[1].text })
    begin(ALL .. 'phrases = { cancel = { "Stop", "genug" }, help = { "help?" } },')
    assert.matches("choose one of", host:send("help").prompt.hint, 1, true)
  end)

  it("is said in the session's language, or in any when there is none", function()
    local phrases = 'phrases = { de = { cancel = { "genug" } }, fr = { cancel = { "assez" } } },'
    begin(ALL .. phrases, { language = "de" })
    assert.equal("colour", host:send("assez").step)
    assert.equal("cancelled", host:send("genug").status)
    begin(ALL .. phrases)
    assert.equal("cancelled", host:send("assez").status)
  end)
end)
