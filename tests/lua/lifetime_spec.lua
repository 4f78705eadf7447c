-- How long a conversation may last in all: max_workflow_duration.
local Host = require "tests.lua.fake_host"
local task = require "tidemill.task"

local host

local STEPS = [[
  ConversationStep { step_id = "ask", step_type = "user_input", prompt = "Act?",
    input_schema = { type = "text" }, save_as = "said", next_steps = { "act" } },
  ConversationStep { step_id = "act", step_type = "action", max_retries = 9, retry_delay = 100,
    next_steps = { "ok" }, run = function(ctx)
      local answer, err = ctx:http { url = "http://x/" }
      return answer and answer.body, err
    end },
  ConversationStep { step_id = "ok", step_type = "approval", role = "boss", prompt = "OK?",
    timeout = 3600, next_steps = { "nap" } },
  ConversationStep { step_id = "nap", step_type = "wait", seconds = 3600,
    next_steps = { "end" } },]]

local function begin(orchestrator, settings, config, steps)
  local script = Host.script(steps or STEPS, ([[start_step = "ask",
    settings = { %s },]]):format(settings or ""))
  host = Host.new((script:gsub("return tm.system {",
    "%0 orchestrator = { " .. (orchestrator or "") .. " },")), config)
  host:load()
  return host:start()
end

local HOUR = "performance_config = { max_workflow_duration = 3600 },"
local function after(ms) host.now = host.now + ms end

local function ended(turn)
  return { turn.status, turn.step, turn.wake_at, turn.error.code, turn.error.step_id }
end

after_each(function() assert.equal(0, task.count(), "a task was left behind") end)

describe("max_workflow_duration", function()
  it("is none by default, comes from the configuration, and the system is stronger", function()
    local config = { max_workflow_duration_ms = 5000 }
    assert.equal(0, begin().wake_at)
    assert.equal(host.now + 5000, begin("", "", config).wake_at)
    assert.equal(host.now + 3600000, begin(HOUR, "", config).wake_at)
    assert.equal(0, begin("performance_config = { max_workflow_duration = 0 },", "",
      config).wake_at)
  end)

  it("ends a conversation that waits, whatever for", function()
    begin(HOUR)
    local at = host.now + 3600000
    host.now = at - 1
    assert.same({ "waiting_input", at }, { host:wake().status, host.ended.wake_at })
    after(1)
    assert.same({ "expired", "", 0, "flow.timeout", "ask" }, ended(host:wake()))
    assert.matches("longer than the 3600 seconds .*max_workflow_duration", host.ended.error.message)
    assert.same({ "ask", "failed", "flow.timeout", 3600000 }, { host.ended.steps[1].step_id,
      host.ended.steps[1].status, host.ended.steps[1].error.code,
      host.ended.steps[1]["end"] - host.ended.steps[1].start })
    assert.same({ workflow = at }, host.ended.runtime.deadlines)

    begin(HOUR)
    after(1000)
    assert.equal(host.now + 3599000, host:send("go").wake_at, "not that of the approval")
    after(3599000)
    assert.same({ "expired", "", 0, "flow.timeout", "ok" }, ended(host:wake()))

    begin(HOUR)
    host:send "go"
    after(1000)
    host:signal("approval", { approved = true, role = "boss" })
    after(3599000)
    assert.same({ "expired", "", 0, "flow.timeout", "nap" }, ended(host:wake()))
    assert.equal("ask act ok nap!", host:path())
  end)

  it("ends it although somebody has come, but late", function()
    for _, come in ipairs { { "message", "hi" }, { "pause" }, { "event", { name = "x" } },
      { "command", { command = "restart" } } } do
      begin(HOUR)
      after(3600000)
      local turn = host:turn(come[1], come[2])
      assert.same({ "expired", "", 0, "flow.timeout", "ask" }, ended(turn), come[1])
      assert.same({}, turn.messages)
    end
  end)

  it("is not put off by starting anew", function()
    begin(HOUR)
    local at = host.now + 3600000
    after(5000)
    assert.same({ "waiting_input", at }, { host:signal("command", { command = "restart" }).status,
      host.ended.wake_at })
  end)

  it("stands still while the conversation is paused", function()
    begin(HOUR)
    after(1000)
    assert.same({ "paused", 0 }, { host:signal("pause").status, host.ended.wake_at })
    after(9000000)
    assert.same({ "waiting_input", host.now + 3599000 }, { host:signal("unpause").status,
      host.ended.wake_at })
  end)

  it("does not wait for an attempt that comes later", function()
    begin "performance_config = { max_workflow_duration = 60 },"
    local at = host.now + 60000
    host.outside = function()
      return nil, { code = "http.connect", message = "no", retryable = true }
    end
    assert.same({ "suspend", at }, { host:send("go").kind, host.ended.wake_at })
    host.now = at
    assert.same({ "expired", "", 0, "flow.timeout", "act" }, ended(host:resume()))
    assert.equal("ask act!", host:path())
  end)

  it("ends a turn that was interrupted, and its step", function()
    begin(HOUR)
    host:send("go", function(op) return op.kind == "http" end)
    host:crash()
    after(3600000)
    assert.same({ "expired", "", 0, "flow.timeout", "act" }, ended(host:resume()))
    assert.equal("ask act!", host:path())
    assert.equal(1, #host.requests)
  end)

  it("lets the step that runs end, and the wait after it is over at once", function()
    begin(HOUR)
    host.outside = function()
      after(3700000)
      return { status = 200, headers = {}, body = "late" }
    end
    local turn = host:send "go"
    assert.same({ "waiting_approval", true }, { turn.status, turn.wake_at < host.now })
    assert.equal("expired", host:wake().status)
  end)

  it("holds where a failed step waits for its user, and when an operator comes", function()
    local DOWN = { "error_config = { auto_recovery = true }, " .. HOUR, HOUR }
    for i, orchestrator in ipairs(DOWN) do
      begin(orchestrator, "resume_on_failure = true, max_retries = 0", nil, [[
        ConversationStep { step_id = "ask", step_type = "user_input", prompt = "Act?",
          input_schema = { type = "text" }, next_steps = { "act" } },
        ConversationStep { step_id = "act", step_type = "action", next_steps = { "end" },
          run = function(ctx) return ctx:http { url = "http://x/" } end },]])
      host.outside = function()
        after(1800000)
        return nil, { code = "http.connect", message = "no" }
      end
      host:send "go"
      after(1800000)
      if i == 1 then
        assert.same({ "expired", "", 0, "flow.timeout", "act" }, ended(host:wake()))
        assert.equal("ask act!", host:path())
      else
        assert.same({ "paused", 0 }, { host.ended.status, host.ended.wake_at })
        host.outside = function()
          after(1800000)
          return nil, { code = "http.connect", message = "no" }
        end
        assert.equal("paused", host:signal("unpause").status, "half an hour was left")
        after(5000)
        assert.same({ "expired", "", 0, "flow.timeout", "act" }, ended(host:signal "unpause"))
      end
    end
  end)

  it("is that of the flow with which the conversation began, in others too", function()
    host = Host.new [[
      local tm = require "tidemill"
      local Step = tm.ConversationStep
      return tm.system { agents = {},
        orchestrator = { performance_config = { max_workflow_duration = 3600 } }, flows = {
          tm.ConversationFlow { flow_id = "main", start_step = "sub", steps = {
            Step { step_id = "sub", step_type = "subflow", flow = "inner",
              next_steps = { "end" } } } },
          tm.ConversationFlow { flow_id = "inner", start_step = "ask", steps = {
            Step { step_id = "ask", step_type = "user_input", prompt = "Inner?",
              input_schema = { type = "text" }, next_steps = { "end" } } } } } }]]
    host:load()
    host:start()
    after(3600000)
    assert.same({ "expired", "", 0, "flow.timeout", "ask" }, ended(host:wake()))
  end)
end)
