-- Steps that fail: attempts, backoff, on_error, limits, loops without end.
local Host = require "tests.lua.fake_host"
local task = require "tidemill.task"

local host

local function load_flow(steps, flow, before, system, config)
  host = Host.new(Host.script(steps, flow, before, system), config)
  host:load()
  return host
end

after_each(function() assert.equal(0, task.count(), "a task was left behind") end)

describe("failures", function()
  local FAILING = [[
    ConversationStep { step_id = "act", step_type = "action", next_steps = { "end" }, %s
      run = function(ctx)
        ctx.state.tries = (ctx.state.tries or 0) + 1
        if ctx.step.attempt < %d then error("boom") end
        return ctx.step.attempt
      end, save_as = "at" },
    ConversationStep { step_id = "sorry", step_type = "agent_response", agent = clerk,
      response = "Sorry.", next_steps = { "end" } },]]

  it("are faults also where memory was too short for a handler", function()
    load_flow(FAILING:format("", 9), 'start_step = "act",')
    local real = xpcall
    _G.xpcall = function() return false, "not enough memory" end -- luacheck: ignore 122
    local turn = host:start()
    _G.xpcall = real -- luacheck: ignore 122
    assert.same({ "failed", "script.memory" }, { turn.status, turn.error.code })
  end)

  it("are those of the step before where a limit is reached between two", function()
    load_flow([[ConversationStep { step_id = "one", step_type = "action", next_steps = { "two" },
        run = function() end, on_error = "two" },
      ConversationStep { step_id = "two", step_type = "action", next_steps = { "end" },
        run = function() end },]], 'start_step = "one",')
    local execution = require "tidemill.execution"
    local enter = execution.enter
    function execution.enter(run, step, ...)
      if step.step_id == "two" then coroutine.yield() end
      return enter(run, step, ...)
    end
    host:start(nil, function() return true end)
    execution.enter = enter
    task.dispatch(host.turn_id, "failed", { code = "script.cpu", message = "too long" })
    host:pump()
    local turn = host.ended
    assert.same({ "failed", "script.cpu", "one" },
      { turn.status, turn.error.code, turn.error.step_id })
    assert.matches("in the step 'one', .*:%d+%)$", turn.error.message)
  end)

  it("say so while scripts load, too", function()
    local real = xpcall
    _G.xpcall = function() return false, "not enough memory" end -- luacheck: ignore 122
    local ok, err = pcall(load_flow, FAILING:format("", 9), 'start_step = "act",')
    _G.xpcall = real -- luacheck: ignore 122
    assert.is_false(ok)
    assert.matches("^not enough memory$", tostring(err))
  end)

  it("come before a row could not hold what its steps brought", function()
    load_flow([[
      ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?",
        input_schema = { type = "text" }, next_steps = { "loop" } },
      ConversationStep { step_id = "loop", step_type = "action", next_steps = { "say" },
        run = function(ctx) return ("\1"):rep(1 << 18) end },
      ConversationStep { step_id = "say", step_type = "agent_response", agent = "bot",
        next_steps = { "loop" } },]], 'start_step = "ask",', nil,
      ', bot = { respond = function() return ("\1"):rep(1 << 18) end }')
    host:start()
    local turn = host:send "go"
    assert.same({ "turn", "failed", "turn.too_large" }, { turn.kind, turn.status, turn.error.code })
  end)

  it("come when an answer makes the state too large to be kept", function()
    load_flow([[ConversationStep { step_id = "say", step_type = "agent_response", agent = "bot",
        next_steps = { "ask" }, save_as = "said" },
      ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?",
        input_schema = { type = "text" }, next_steps = { "say" } },]],
      'start_step = "say", variables = { big = ("x"):rep(1 << 20)'
      .. (' .. ("x"):rep(1 << 20)'):rep(6) .. ' },', nil,
      ', bot = { respond = function() return ("x"):rep(1 << 20) end }')
    local turn = host:start()
    assert.same({ "turn", "failed", "state.invalid" }, { turn.kind, turn.status,
      turn.error and turn.error.code })
  end)

  it("are tried again after a durable wait that grows", function()
    load_flow(FAILING:format("max_retries = 2, retry_delay = 2,", 3), 'start_step = "act",')
    local row = host:start()
    assert.same({ "suspend", "act" }, { row.kind, row.step })
    local first = row.wake_at - host.now
    assert.is_true(first >= 2000 and first <= 2500)
    assert.same({ 1, "failed", 1 }, { row.steps[1].seq, row.steps[1].status, row.steps[1].attempt })
    assert.equal("script.error", row.steps[1].error.code)
    assert.matches("^scripts/shop/init.lua:%d+: boom$", row.steps[1].error.message)
    assert.matches("scripts/shop/init.lua:%d+: in", row.steps[1].error.traceback)
    assert.is_nil(row.steps[1].error.traceback:find("tidemill", 1, true))
    assert.matches("^scripts/shop/init.lua:%d+$", row.steps[1].error.source)
    assert.same({}, row.state)
    host.now = row.wake_at
    row = host:resume()
    local second = row.wake_at - host.now
    assert.is_true(second >= 4000 and second <= 5000)
    host.now = row.wake_at
    row = host:resume()
    assert.same({ "completed", { tries = 1, at = 3 } }, { row.status, row.state })
    assert.equal("act! act! act", host:path())
    assert.same({ 1, 2, 3 }, { host:all("steps")[1].attempt, host:all("steps")[2].attempt,
      host:all("steps")[3].attempt })
  end)

  --- How long the attempt behind the first one, and the one behind that, are waited for.
  local function waits(delay)
    load_flow(FAILING:format(("max_retries = 9, retry_delay = %s,"):format(delay), 99),
      'start_step = "act",')
    local first = host:start().wake_at - host.now
    return first, host:resume().wake_at - host.now
  end

  it("wait no longer than five minutes, and up to a quarter more as chance has it", function()
    local _, second = waits(200)
    assert.is_true(second > 300000 and second <= 375000, tostring(second))
  end)

  it("wait as long as their own delay says where that is more", function()
    local first, second = waits '"10m"'
    assert.is_true(first > 600000 and first <= 750000, tostring(first))
    assert.is_true(second > 600000 and second <= 750000, tostring(second))
  end)

  it("take defaults from flow, orchestrator and configuration", function()
    local function retries(flow, orchestrator, config)
      local script = Host.script(FAILING:format("", 99), 'start_step = "act",' .. flow)
        :gsub("return tm.system {", "%0 orchestrator = { " .. orchestrator .. " },")
      host = Host.new(script, config)
      host:load()
      local count, row = 0, host:start()
      while row.kind == "suspend" do count, row = count + 1, host:resume() end
      return count
    end
    assert.equal(0, retries("", ""))
    assert.equal(1, retries("", "", { max_retries = 1 }))
    assert.equal(2, retries("", "error_config = { max_retries = 2 }", { max_retries = 1 }))
    assert.equal(3, retries("settings = { max_retries = 3 },",
      "error_config = { max_retries = 2 }"))
  end)

  it("end the conversation when attempts are used up, and the turn answers normally", function()
    load_flow(FAILING:format("max_retries = 0,", 99), 'start_step = "act",')
    local turn = host:start { message = "hi" }
    assert.same({ "turn", "failed", "" }, { turn.kind, turn.status, turn.step })
    assert.same({ "script.error", "act" }, { turn.error.code, turn.error.step_id })
    assert.equal("error", host.logs[1].level)
    assert.same({ "c1", "act" }, { host.logs[1].fields.conversation_id,
      host.logs[1].fields.step_id })
  end)

  it("lead to on_error when attempts are used up", function()
    load_flow(FAILING:format('max_retries = 1, on_error = "sorry",', 99), 'start_step = "act",')
    assert.equal("suspend", host:start().kind)
    local turn = host:resume()
    assert.same({ "completed", "Sorry." }, { turn.status, turn.messages[1].text })
    assert.equal("act! act! sorry", host:path())
    assert.same({}, turn.state)
    assert.equal(1, host:all("steps")[3].attempt)
  end)

  it("keep what a script says about its error", function()
    for raise, code in pairs {
      ['error({ code = "stock.empty", message = "none left", retryable = false })'] = "stock.empty",
      ["return nil, { code = 'x y', message = 'm' }"] = "script.error",
      ["error(setmetatable({}, { __tostring = function() return 'odd' end }))"] = "script.error",
      ["error()"] = "script.error", ["error({})"] = "script.error",
      ["return function() end"] = "step.output", ["return ('x'):rep(1000)"] = "step.too_large",
    } do
      load_flow(([[ConversationStep { step_id = "act", step_type = "action", next_steps = { "end" },
        run = function() %s end },]]):format(raise), 'start_step = "act",', nil, nil,
        { output_limit = 500 })
      local turn = host:start()
      assert.same({ "failed", code }, { turn.status, turn.error.code })
      assert.is_string(turn.error.message)
    end
  end)

  it("of a limit fail the step that ran, and nothing else", function()
    load_flow([[
      ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?",
        input_schema = { type = "text" }, save_as = "said", next_steps = { "act" } },
      ConversationStep { step_id = "act", step_type = "action", next_steps = { "end" },
        max_retries = 5, on_error = "sorry",
        run = function(ctx) ctx.state.half = 1; return ctx:http { url = "http://x/" } end },
      ConversationStep { step_id = "sorry", step_type = "agent_response", agent = clerk,
        response = "Sorry.", next_steps = { "end" } },]], 'start_step = "ask",')
    host:start()
    host:send("hi", function(op) return op.kind == "http" end)
    host.pending = {}
    task.dispatch(host.turn_id, "failed", { code = "script.cpu", message = "too long",
      retryable = false })
    assert.same({ "timer", 1 }, { host.pending[1].kind, #host.pending }) -- others go first
    host:pump()
    assert.same({ "completed", { said = "hi" } }, { host.ended.status, host.ended.state })
    assert.equal("ask act! sorry", host:path())
    local failed = host:all("steps")[2].error
    assert.equal("script.cpu", failed.code)
    assert.matches("^too long %(in the step 'act', scripts/shop/init.lua:%d+%)$", failed.message)
  end)

  describe("while an answer is looked at", function()
    local text = require "host.text"
    local match = text.match
    after_each(function() text.match = match end)

    --- `limit()`: what becomes of the look at an answer that the pattern is compared with.
    local function answer(limit, validate)
      load_flow(([[ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?",
        input_schema = { type = "text", pattern = "^b", validate = %s }, save_as = "said",
        next_steps = { "end" } },]]):format(validate or "nil"), 'start_step = "ask",')
      host:start()
      text.match = limit
      local turn = host:send "a boat"
      text.match = match
      return turn
    end
    local function no_memory() error("not enough memory", 0) end
    local function stopped()
      task.dispatch(host.turn_id, "failed", { code = "script.cpu", message = "too long" })
      coroutine.yield(task.WAIT)
    end

    it("are that of the answer, and the question stays open", function()
      for _, limit in ipairs { no_memory, stopped } do
        local turn = answer(limit)
        assert.same({ "fail", "input.too_large", "too_large", "ask" },
          { turn.kind, turn.error.code, turn.error.status, turn.error.step_id })
        assert.equal(1, #host.rows)
        turn = host:send "boat"
        assert.same({ "completed", "boat" }, { turn.status, turn.state.said })
      end
    end)

    it("are that of the script where its function runs", function()
      local turn = answer(function() return true end,
        'function() error("not enough memory", 0) end')
      assert.same({ "failed", "script.memory" }, { turn.status, turn.error.code })
    end)
  end)

  it("say which step went over which limit, and what raises it", function()
    for code, limit in pairs {
      ["return ('x'):rep(2000)"] = "returned 2002 bytes, and 1000 are allowed; .* limits.output",
      ["ctx:http { url = 'http://x/' }"] = "took longer than its 5000 ms; .*step_timeout",
    } do
      local shop = Host.new(Host.script(([[
        ConversationStep { step_id = "act", step_type = "action", next_steps = { "end" },
          timeout = 5, run = function(ctx) %s end },]]):format(code), 'start_step = "act",'),
        { output_limit = 1000 })
      shop.outside = function()
        shop.now = shop.now + 6000
        return { status = 200, headers = {}, body = "" }
      end
      shop:load()
      local turn = shop:start()
      assert.matches("the step 'act' %(scripts/shop/init.lua:%d+%) " .. limit, turn.error.message)
    end
  end)

  it("of a validate function fail the step, not silently the answer", function()
    load_flow([[ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?",
      input_schema = { type = "text", validate = function(v) return v.x.y end },
      next_steps = { "end" } },]], 'start_step = "ask", settings = { max_retries = 3 },')
    host:start()
    local turn = host:send "hi"
    assert.same({ "failed", "script.error", "hi" },
      { turn.status, turn.error.code, turn.steps[1].input })
    assert.equal("hi", turn.messages[1].text)
  end)

  it("stop a loop that waits for nobody", function()
    load_flow([[
      ConversationStep { step_id = "a", step_type = "action", run = function() end,
        next_steps = { "b" }, on_error = "b" },
      ConversationStep { step_id = "b", step_type = "action", run = function() end,
        next_steps = { "a" }, on_error = "a" },]], 'start_step = "a",')
    local turn = host:start()
    assert.same({ "failed", "flow.endless" }, { turn.status, turn.error.code })
    assert.matches("1000 steps ran in one turn without waiting for anybody, in the loop: a, b",
      turn.error.message, 1, true)
    assert.equal(1001, #host:all "steps")
  end)
end)
