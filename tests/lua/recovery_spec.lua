-- What becomes of a conversation whose step has failed for good: fallback replies, waiting for its
-- user, waiting for an operator.
local Host = require "tests.lua.fake_host"
local json = require "host.json"
local task = require "tidemill.task"

local host

--- A shop whose agent `bot` and whose action fail while `broken` (of the outside) is true.
local AGENT = [[
local function fail_if_broken(ctx)
  local answer, err = ctx:http { url = "http://x/", timeout = 5 }
  if not answer then return nil, err end
  if answer.status == 500 then error(answer.body) end
  return answer.body .. ":" .. tostring(ctx.input)
end
local bot = { respond = fail_if_broken }
local function guarded(ctx) return fail_if_broken(ctx) end]]

local STEPS = [[
  ConversationStep { step_id = "ask", step_type = "user_input", prompt = "What?",
    input_schema = { type = "text" }, save_as = "said", next_steps = { "say" } },
  ConversationStep { step_id = "say", step_type = "agent_response", agent = "bot", %s
    save_as = "reply", next_steps = { "act" } },
  ConversationStep { step_id = "act", step_type = "action", run = guarded, save_as = "acted",
    next_steps = { "end" } },
  ConversationStep { step_id = "sorry", step_type = "agent_response", agent = clerk,
    response = "Sorry.", next_steps = { "end" } },]]

local WELL = { status = 200, headers = {}, body = "well" }
local BROKEN = { status = 500, headers = {}, body = "broken" }

--- `orchestrator` and `settings` are texts; the answers of the outside come one after another, the
--- last one again and again.
local function load(given)
  local script = Host.script(given.steps or STEPS:format(given.say or ""), ([[start_step = "ask",
    settings = { %s },]]):format(given.settings or ""), AGENT, ", bot = bot")
  host = Host.new((script:gsub("return tm.system {",
    "%0 orchestrator = { " .. (given.orchestrator or "") .. " },")), given.config)
  host.answers = given.answers or { BROKEN }
  host.outside = function()
    local answer = host.answers[2] and table.remove(host.answers, 1) or host.answers[1]
    if answer.code then return nil, answer end
    return answer
  end
  host:load()
  host:start()
  return host:send "hello"
end

--- Of a turn, whose rows follow those of the one before, what was said.
local function replies()
  local rows, said, first = host.rows, {}, #host.rows
  while first > 1 and rows[first - 1].kind ~= "turn" do first = first - 1 end
  for i = first, #rows do
    for _, message in ipairs(rows[i].messages or {}) do
      said[#said + 1] = message.role .. ": " .. message.text
    end
  end
  return table.concat(said, "; ")
end

local FALLBACK = [[error_config = { %s fallback_responses = { agent_timeout = "Slow.",
  agent_error = "Odd.", network_error = "No net." } },]]

after_each(function() assert.equal(0, task.count(), "a task was left behind") end)

describe("a step whose attempts are used up", function()
  it("fails the conversation where nothing else is said", function()
    local turn = load {}
    assert.same({ "failed", "", "user: hello" }, { turn.status, turn.step, replies() })
  end)

  it("pauses the conversation, and runs again when that is resumed", function()
    local turn = load { settings = "resume_on_failure = true, max_retries = 1",
      answers = { BROKEN, BROKEN, BROKEN, WELL } }
    assert.equal("suspend", turn.kind)
    turn = host:resume()
    assert.same({ "paused", "say", 0, "say" }, { turn.status, turn.step, turn.wake_at,
      turn.error.step_id })
    assert.matches("broken", turn.error.message, 1, true)
    assert.is_nil(turn.prompt)
    assert.same({ "fail", "conversation.not_waiting" },
      { host:send("hi").kind, host.ended.error.code })
    assert.equal("suspend", host:signal("unpause").kind, "its attempts begin anew")
    turn = host:resume()
    assert.same({ "completed", "well:hello", "well:hello" },
      { turn.status, turn.state.reply, turn.state.acted })
    assert.is_nil(turn.runtime.input)
    assert.equal("ask say! say! say! say act", host:path())
  end)

  it("has what ctx:once got before, and counts its attempts on", function()
    local turn = load { settings = "resume_on_failure = true, max_retries = 1", steps = [[
      ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?",
        input_schema = { type = "text" }, next_steps = { "act" } },
      ConversationStep { step_id = "act", step_type = "action", next_steps = { "end" },
        run = function(ctx)
          local paid = ctx:once("pay", function() return ctx:http({ url = "http://x/" }).body end)
          if ctx.step.attempt < 4 then error("odd") end
          ctx.state.paid = paid
        end },]], answers = { WELL } }
    assert.equal("suspend", turn.kind)
    host:resume()
    host:signal "unpause"
    turn = host:resume()
    assert.same({ "completed", "well", 1 }, { turn.status, turn.state.paid, #host.requests })
    assert.equal("ask act! act! act! act", host:path())
    assert.is_nil(turn.runtime.tried)
    local waits = {}
    for i, row in ipairs(host.rows) do waits[#waits + 1] = row.kind == "suspend" and i or nil end
    assert.equal(2, #waits)
    for _, at in ipairs(waits) do
      assert.is_true(host.rows[at].wake_at - host.now <= 1250, "the delay begins anew, too")
    end
  end)

  it("pauses it as often as it fails, and with a loop without end", function()
    local turn = load { settings = "resume_on_failure = true", steps = [[
      ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?",
        input_schema = { type = "text" }, next_steps = { "a" } },
      ConversationStep { step_id = "a", step_type = "action", run = function() end,
        next_steps = { "b" } },
      ConversationStep { step_id = "b", step_type = "action", run = function() end,
        next_steps = { "a" } },]], orchestrator = "error_config = { auto_recovery = true }" }
    assert.same({ "paused", "flow.endless" }, { turn.status, turn.error.code })
    turn = host:signal "unpause"
    assert.same({ "paused", "flow.endless" }, { turn.status, turn.error.code })
    assert.same({ "fail", "conversation.not_waiting" },
      { host:signal("pause").kind, host.ended.error.code })
  end)

  it("tells the user by whose fault, while the record keeps the error", function()
    for said, answer in pairs { ["Odd."] = BROKEN,
      ["No net."] = { code = "http.connect", message = "refused" },
      ["Slow."] = { code = "http.timeout", message = "late" } } do
      local turn = load { orchestrator = FALLBACK:format "", answers = { answer } }
      assert.same({ "failed", "user: hello; agent: " .. said }, { turn.status, replies() })
      local message, step = turn.messages[1], turn.steps[1]
      assert.same({ "say", "bot", "fallback" }, { message.step_id, message.agent,
        message.provider })
      assert.same({ "say", "failed", answer.code or "script.error" }, { step.step_id, step.status,
        step.error.code })
      assert.is_nil(step.reply)
    end
  end)

  it("tells it of the network only where no agent has failed", function()
    local turn = load { orchestrator = FALLBACK:format "", answers = { WELL, BROKEN } }
    assert.same({ "failed", "user: hello; agent: well:hello" }, { turn.status, replies() })
    load { orchestrator = FALLBACK:format "",
      answers = { WELL, { code = "http.timeout", message = "late" } } }
    assert.equal("user: hello; agent: well:hello; agent: No net.", replies())
  end)

  it("tells nothing before, nor where on_error leads on", function()
    local turn = load { orchestrator = FALLBACK:format "max_retries = 1, retry_delay = 1," }
    assert.same({ "suspend", "user: hello" }, { turn.kind, replies() })
    host:resume()
    assert.equal("user: hello; agent: Odd.", replies())
    turn = load { say = 'on_error = "sorry",', settings = "resume_on_failure = true",
      orchestrator = FALLBACK:format "auto_recovery = true," }
    assert.same({ "completed", "user: hello; agent: Sorry." }, { turn.status, replies() })
  end)

  it("takes each reply from the configuration where the system has none", function()
    local config = { fallback_responses = { agent_error = "Configured.", network_error = "Net." } }
    load { config = config }
    assert.equal("user: hello; agent: Configured.", replies())
    load { config = config,
      orchestrator = 'error_config = { fallback_responses = { agent_error = "Own." } },' }
    assert.equal("user: hello; agent: Own.", replies())
  end)
end)

describe("auto_recovery", function()
  local RECOVERY = FALLBACK:format "auto_recovery = true,"

  it("waits at the step, and the user's next message runs it again", function()
    local turn = load { orchestrator = RECOVERY, settings = "resume_on_failure = true",
      answers = { BROKEN, WELL } }
    assert.same({ "waiting_input", "say", 0 }, { turn.status, turn.step, turn.wake_at })
    assert.equal("user: hello; agent: Odd.; prompt: That did not work. Send any message to try "
      .. "again.", replies())
    assert.same({ step_id = "say", text = "That did not work. Send any message to try again.",
      input_schema = { type = "text" }, attempt = 1, hint = json.null, expires_at = json.null },
      turn.prompt)
    assert.is_nil(turn.error)
    turn = host:send "again"
    assert.same({ "completed", "well:again" }, { turn.status, turn.state.reply })
    assert.equal("user: again; agent: well:again", replies())
    assert.equal("ask say! say act", host:path())
  end)

  it("comes from the configuration, and the system is stronger", function()
    assert.equal("waiting_input", load { config = { auto_recovery = true } }.status)
    assert.equal("failed", load { config = { auto_recovery = true },
      orchestrator = "error_config = { auto_recovery = false }," }.status)
  end)

  it("ends as any prompt does when the user stays silent", function()
    local turn = load { orchestrator = RECOVERY, settings = "interaction_timeout = 60" }
    local at = host.now + 60000
    assert.same({ at, at }, { turn.wake_at, turn.prompt.expires_at })
    local asked = turn.prompt
    host.now = at - 1
    turn = host:wake()
    assert.same({ "waiting_input", at, asked }, { turn.status, turn.wake_at, turn.prompt })
    host.now = at
    turn = host:wake()
    assert.same({ "expired", "interaction.timeout", "say" }, { turn.status, turn.error.code,
      turn.error.step_id })
    load { orchestrator = RECOVERY, settings = "interaction_timeout = 60" }
    host.now = host.now + 60000
    assert.equal("expired", host:send("late").status)
  end)

  it("ends by its flow's ladder, or goes where that goes", function()
    local function wait(rungs)
      local turn = load { orchestrator = RECOVERY,
        settings = "}, on_no_input = { { after = 5, say = \"?\" }, " .. rungs }
      local at = host.now + 60000
      assert.same({ at, at }, { turn.wake_at, turn.prompt.expires_at })
      host.now = at
    end
    wait "{ after = 60, close = true }"
    assert.same({ "expired", "say" }, { host:wake().status, host.ended.error.step_id })
    assert.matches("raise the last time of the flow's on_no_input", host.ended.error.message)
    wait "{ after = 60, go = \"sorry\" }"
    assert.same({ "completed", "ask say! sorry" }, { host:wake().status, host:path() })
    wait "{ after = 60, go = \"sorry\" }"
    assert.equal("completed", host:send("late").status)
    assert.equal(0, load { orchestrator = RECOVERY,
      settings = "}, on_no_input = { { after = 5, say = \"?\" }" }.wake_at)
  end)

  it("can be held, and takes commands", function()
    load { orchestrator = RECOVERY, settings = "allow_early_termination = true",
      answers = { BROKEN, WELL } }
    local asked = host.ended.prompt
    host:signal "pause"
    local turn = host:signal "unpause"
    assert.same({ "waiting_input", asked }, { turn.status, turn.prompt })
    turn = host:signal("command", { command = "skip" })
    assert.same({ "waiting_input", "There is nothing to skip here.", asked.text },
      { turn.status, turn.prompt.hint, turn.prompt.text })
    assert.equal("ask", host:signal("command", { command = "restart" }).step)
    load { orchestrator = RECOVERY, settings = "allow_early_termination = true" }
    assert.equal("cancelled", host:signal("command", { command = "cancel" }).status)
  end)
end)

describe("auto_recovery, and what its user says instead of a message,", function()
  local function wait_at(phrases, more)
    more = more or {}
    more.orchestrator = FALLBACK:format "auto_recovery = true,"
    more.settings = (more.settings or "") .. "}, phrases = { " .. phrases
    return load(more)
  end

  it("is a phrase there as at any prompt", function()
    wait_at('cancel = { "stop" }', { settings = "allow_early_termination = true" })
    local turn = host:send "Stop!"
    assert.same({ "cancelled", "user: Stop!" }, { turn.status, replies() })
    wait_at('restart = { "start over" }')
    assert.equal("ask", host:send("start over").step)
    assert.equal("ask say!", host:path())
    wait_at('help = { "?" }')
    turn = host:send "?"
    assert.same({ "waiting_input", "say", "The step before has failed, and any message runs it "
      .. "again. You can also say: restart." }, { turn.status, turn.step, turn.prompt.hint })
    assert.matches("^user: %?; prompt: The step before .- restart%.\nThat did not", replies())
    assert.same({ kind = "rollback", back = 1 }, wait_at('back = { "back" }') and host:send "back")
  end)

  it("is refused with a reason, and its time goes on", function()
    wait_at('cancel = { "stop" }, skip = { "next" }', { settings = "interaction_timeout = 60" })
    local at = host.ended.wake_at
    host.now = host.now + 1000
    local turn = host:send "stop"
    assert.matches("cannot be ended here", turn.prompt.hint, 1, true)
    assert.same({ at, at, 2 }, { turn.wake_at, turn.prompt.expires_at, turn.runtime.wait.shown })
    assert.equal("There is nothing to skip here.", host:send("next").prompt.hint)
    assert.equal("ask say!", host:path())
    host.answers = { WELL }
    assert.equal("completed", host:send("again").status)
  end)

  it("is one also where the step has options, which are not asked for", function()
    load { orchestrator = FALLBACK:format "auto_recovery = true,", steps = [[
      ConversationStep { step_id = "ask", step_type = "user_input", prompt = "What?", save_as = "a",
        input_schema = { type = "choice", options = { "stop", "hello" },
          validate = function() error("odd") end }, next_steps = { "end" } },]],
      settings = 'allow_early_termination = true }, phrases = { cancel = { "stop" }' }
    assert.same({ "waiting_input", "ask!" }, { host.ended.status, host:path() })
    assert.equal("cancelled", host:send("stop").status)
  end)
end)

describe("a step of another flow whose attempts are used up", function()
  local FLOWS = [[
    local tm = require "tidemill"
    local Step = tm.ConversationStep
    return tm.system { agents = { bot = { respond = function(ctx) error("odd") end } },
      orchestrator = { error_config = { %s fallback_responses = { agent_error = "Odd." } } },
      flows = {
        tm.ConversationFlow { flow_id = "main", start_step = "sub", settings = { %s },
          interrupts = { { flow = "inner", phrases = { "inner" } } }, steps = {
            Step { step_id = "sub", step_type = "subflow", flow = "inner", next_steps = { "ask" },
              %s },
            Step { step_id = "ask", step_type = "user_input", prompt = "Main?",
              input_schema = { type = "text" }, next_steps = { "end" } } } },
        tm.ConversationFlow { flow_id = "inner", start_step = "first", steps = {
          Step { step_id = "first", step_type = "user_input", prompt = "Inner?",
            input_schema = { type = "text" }, save_as = "said", next_steps = { "say" } },
          Step { step_id = "say", step_type = "agent_response", agent = "bot",
            next_steps = { "end" } } } } } }]]

  local function inner(errors, settings, sub)
    host = Host.new(FLOWS:format(errors or "", settings or "", sub or ""))
    host:load()
    host:start()
    return host:send "x"
  end

  it("is waited at where it is, by the settings of the first flow", function()
    local turn = inner("", "resume_on_failure = true")
    assert.same({ "paused", "say" }, { turn.status, turn.step })
    turn = host:signal "unpause"
    assert.same({ "paused", "say", "x" }, { turn.status, turn.step, turn.runtime.state.said })
    assert.equal("first say! say!", host:path())
    turn = inner("auto_recovery = true,")
    assert.same({ "waiting_input", "say" }, { turn.status, turn.step })
    assert.equal("first say!", host:path())
  end)

  it("is not waited at where a step below has an on_error", function()
    local turn = inner("auto_recovery = true,", "resume_on_failure = true", 'on_error = "ask"')
    assert.same({ "waiting_input", "ask", "user: x; prompt: Main?" }, { turn.status, turn.step,
      replies() })
  end)

  it("gives way to the flow that it interrupted", function()
    inner("auto_recovery = true,", "resume_on_failure = true", 'on_error = "ask"')
    host:send "inner"
    local turn = host:send "y"
    assert.same({ "waiting_input", "ask", "user: y; agent: Odd.; prompt: Main?" },
      { turn.status, turn.step, replies() })
  end)
end)
