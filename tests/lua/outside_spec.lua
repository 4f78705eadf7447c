-- ctx:http: recorded before the next call, replayed after a crash, never guessed.
local Host = require "tests.lua.fake_host"
local task = require "tidemill.task"

local host

local function load_flow(steps, flow, before, system, config)
  host = Host.new(Host.script(steps, flow, before, system), config)
  host:load()
  return host
end

after_each(function() assert.equal(0, task.count(), "a task was left behind") end)

describe("calls to the outside", function()
  local CALLING = [[
    ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?",
      input_schema = { type = "text" }, save_as = "said", next_steps = { "call" } },
    ConversationStep { step_id = "call", step_type = "action", save_as = "got",
      next_steps = { "second" },
      run = function(ctx)
        local a = ctx:http { url = "http://x/a", headers = { ["X-N"] = 1 } }
        local b = ctx:http { method = "POST", url = "http://x/b", json = { n = ctx:random(1,
          1000) } }
        return { a.body, b.json.n, ctx.now }
      end },
    ConversationStep { step_id = "second", step_type = "action", next_steps = { "end" },
      run = function(ctx) return (ctx:http { url = "http://x/c" }).body end, save_as = "last" },
  ]]

  local function echo(request)
    return { status = 200, headers = { ["content-type"] = "application/json" },
      body = request.body or '"' .. request.url .. '"' }
  end

  local function calling()
    load_flow(CALLING, 'start_step = "ask",')
    host.outside = echo
    host:start()
  end

  local function kinds()
    local list = {}
    for i, row in ipairs(host.rows) do list[i] = row.kind end
    return table.concat(list, " ")
  end

  it("are recorded one by one, behind a begin row with all that was completed", function()
    calling()
    local turn = host:send "hi"
    assert.equal("turn begin call call begin call turn", kinds())
    assert.equal("completed", turn.status)
    local begin = host.rows[2]
    assert.same({ "active", "call", { said = "hi" } }, { begin.status, begin.step, begin.state })
    assert.same({ "ask" }, { begin.steps[1].step_id })
    assert.equal("user", begin.messages[1].role)
    assert.same({ "call" }, { host.rows[5].steps[1].step_id })
    assert.equal("second", host.rows[5].step)
    assert.matches("^2:http:%x+:1$", host.rows[3].key)
    assert.equal(32, #host.rows[3].key:match("http:(%x+)"))
    assert.equal("ask call second", host:path())
  end)

  it("give no more than 40,000 values of JSON", function()
    load_flow([[ConversationStep { step_id = "call", step_type = "action", next_steps = { "end" },
      save_as = "got", run = function(ctx)
        local a, b = ctx:http { url = "http://x/39999" }, ctx:http { url = "http://x/40000" }
        return { #a.json, b.json == nil, #b.body }
      end }]], 'start_step = "call",')
    host.outside = function(request)
      local commas = tonumber(request.url:match("%d+$"))
      return { status = 200, headers = { ["content-type"] = "application/json" },
        body = "[" .. ("1,"):rep(commas) .. "1]" }
    end
    assert.same({ 40000, true, 80003 }, host:start().state.got)
  end)

  it("carry an idempotency key of their own", function()
    calling()
    host:send "hi"
    local seen = {}
    for _, request in ipairs(host.requests) do
      local key = request.headers["Idempotency-Key"]
      assert.is_nil(seen[key])
      assert.equal(32, #key)
      seen[key] = true
    end
    assert.equal("1", host.requests[1].headers["X-N"])
    assert.equal("application/json", host.requests[2].headers["Content-Type"])
  end)

  it("survive a crash at any moment: recorded ones are not repeated", function()
    calling()
    local expected = host:send("hi").state
    local length = 0
    repeat
      length = length + 1
      calling()
      local ran, recorded = 0, {}
      local died = not host:send("hi", function() ran = ran + 1; return ran == length end)
      for _, row in ipairs(host.rows) do recorded[row.key or ""] = true end
      local before = #host.requests
      if died then
        host:crash()
        host.now = host.now + 7777
        local begun = kinds():find("begin", 1, true) ~= nil
        local turn = begun and host:resume() or host:send("hi")
        assert.equal("completed", turn.status)
        assert.equal("ask call second", host:path())
        if begun then
          assert.same(expected.got[2], turn.state.got[2])
          assert.same(expected.said, turn.state.said)
        end
        local keys = 0
        for _ in pairs(recorded) do keys = keys + 1 end
        local unrecorded = before - (keys - 1) -- performed, but the host died before the row
        assert.equal(3, #host.requests - unrecorded)
        if unrecorded == 1 then
          assert.equal(host.requests[before].headers["Idempotency-Key"],
            host.requests[before + 1].headers["Idempotency-Key"])
        end
      end
    until not died
    assert.is_true(length > 7)
  end)

  it("see the same ctx.now after a crash", function()
    calling()
    local at = host.now
    host:send("hi", function(op) return op.kind == "call" and #host.requests == 2 end)
    host:crash()
    host.now = host.now + 5000
    assert.equal(at, host:resume().state.got[3])
  end)

  it("see the same ctx.now after a crash in a further attempt", function()
    load_flow([[ConversationStep { step_id = "call", step_type = "action", next_steps = { "end" },
      max_retries = 1, retry_delay = 0, save_as = "got", run = function(ctx)
        for i = 1, 2 do ctx:http { url = "http://x/" .. i, headers = { at = ctx.now } } end
        if ctx.step.attempt == 1 then error("once") end
        return ctx.now
      end },]], 'start_step = "call",')
    host:start()
    host.now = host.now + 100
    local at = host.now
    host:resume(function(op) return op.kind == "http" and #host.requests == 4 end)
    host:crash()
    host.now = host.now + 5000
    assert.same({ "completed", at }, { host:resume().status, host.record.state.got })
    assert.equal(5, #host.requests)
    assert.equal(host.requests[4].headers["Idempotency-Key"],
      host.requests[5].headers["Idempotency-Key"])
  end)

  it("do not make the next step begin when theirs did", function()
    calling()
    host.outside = function(request)
      host.now = host.now + 1000
      return echo(request)
    end
    local turn = host:send "hi"
    local call, second = host.rows[5].steps[1], turn.steps[1]
    assert.same({ "call", "second" }, { call.step_id, second.step_id })
    assert.same({ 1000000, 1002000, 1002000, 1003000 }, { call.start, call["end"], second.start,
      second["end"] })
  end)

  it("that differ after a crash are an error, not a guess", function()
    load_flow([[ConversationStep { step_id = "call", step_type = "action", next_steps = { "end" },
      max_retries = 3, on_error = "other",
      run = function(ctx)
        pcall(function() return ctx:http { url = "http://x/" .. ctx.config.box[1] } end)
        local again = ctx:http { url = "http://x/second" }
        return again.status
      end },
      ConversationStep { step_id = "other", step_type = "action", run = function() end,
        next_steps = { "end" } },]], 'start_step = "call",')
    local system = require("tidemill.system").loaded "shop"
    system.config_view = { box = { "one" } }
    host:start(nil, function(op) return op.kind == "http" and #host.requests == 2 end)
    host:crash()
    system.config_view = { box = { "two" } }
    local turn = host:resume()
    assert.same({ "failed", "journal.nondeterminism" }, { turn.status, turn.error.code })
    assert.equal(2, #host.requests, "nothing new leaves")
    assert.equal("call!", host:path())
  end)

  it("that are equal are told apart by their position", function()
    load_flow([[ConversationStep { step_id = "call", step_type = "action", next_steps = { "end" },
      run = function(ctx)
        local n = 0
        for _ = 1, 3 do n = n * 10 + tonumber(ctx:http({ url = "http://x/" }).body) end
        return n
      end, save_as = "n" },]], 'start_step = "call",')
    local count = 0
    host.outside = function()
      count = count + 1
      return { status = 200, headers = {}, body = tostring(count) }
    end
    host:start(nil, function(op) return op.kind == "http" and #host.requests == 3 end)
    host:crash()
    assert.equal(123, host:resume().state.n)
    assert.equal(3, count)
  end)

  it("that fail are answered nil and an error, which is recorded too", function()
    load_flow([[ConversationStep { step_id = "call", step_type = "action", next_steps = { "end" },
      run = function(ctx)
        local answer, err = ctx:http { url = "http://x/" }
        ctx.state.code, ctx.state.text = err.code, tostring(err)
        return answer, err
      end },]], 'start_step = "call", settings = { max_retries = 1, retry_delay = 0 },')
    host.outside = function() return nil, { code = "http.connect", message = "refused",
      retryable = true } end
    local row = host:start()
    assert.same({ "suspend", "http.connect" }, { row.kind, row.steps[1].error.code })
    assert.same({ error = { code = "http.connect", message = "refused", retryable = true } },
      host.rows[2].result)
    host.outside = function() return { status = 200, headers = {}, body = "\255" } end
    local turn = host:resume()
    assert.same({ "failed", "http.not_text" }, { turn.status, turn.error.code })
    assert.equal(2, #host.requests, "another attempt is another call")
  end)

  it("end with the step's time, also inside pcall", function()
    load_flow([[ConversationStep { step_id = "call", step_type = "action", next_steps = { "end" },
      timeout = 5, run = function(ctx)
        for _ = 1, 3 do pcall(ctx.http, ctx, { url = "http://x/" }) end
        return "never mind"
      end },]], 'start_step = "call",')
    host.outside = function(request)
      host.now = host.now + math.min(3000, request.timeout_ms)
      if request.timeout_ms < 3000 then return nil, { code = "http.timeout", message = "slow" } end
      return { status = 200, headers = {}, body = "" }
    end
    local turn = host:start()
    assert.same({ "failed", "step.timeout" }, { turn.status, turn.error.code })
    assert.same({ 5000, 2000 }, { host.requests[1].timeout_ms, host.requests[2].timeout_ms })
    assert.equal(2, #host.requests)
  end)

  it("are not the only thing that takes time", function()
    load_flow([[ConversationStep { step_id = "act", step_type = "action", next_steps = { "end" },
      timeout = 1, run = function(ctx) ctx:log("slow") end },]], 'start_step = "act",')
    local write = require("host.log").write
    require("host.log").write = function() host.now = host.now + 1001 end
    local turn = host:start()
    require("host.log").write = write
    assert.equal("step.timeout", turn.error.code)
  end)

  it("fail the whole turn when the journal cannot be written", function()
    calling()
    host.begin_error = { code = "store.full", message = "disk full", status = "unavailable" }
    local turn = host:send "hi"
    assert.same({ "fail", "store.full", "unavailable" },
      { turn.kind, turn.error.code, turn.error.status })
    assert.same({ 0, "waiting_input" }, { #host.requests, host.record.status })
    host.begin_error = nil
    assert.equal("completed", host:send("hi").status)
  end)

  it("give errors that a script may change without changing how the step ends", function()
    local function failing(code)
      load_flow(([[ConversationStep { step_id = "call", step_type = "action",
        next_steps = { "end" }, run = function(ctx)
          local answer, err = ctx:http { url = "http://x/" }
          %s
          return answer, err
        end },]]):format(code), 'start_step = "call",')
      host.outside = function() return nil, { code = "http.connect", message = "no" } end
      return host:start()
    end
    for code, message in pairs { ["err.turn = true"] = "no", ["err.message = '\\255'"] = "?",
      ["err.message = nil"] = "http.connect: nil", ["err.code = {}"] = "no" } do
      local turn = failing(code)
      assert.same({ "turn", "failed" }, { turn.kind, turn.status }, code)
      assert.equal(message, turn.error.message)
    end
  end)

  it("break a step however its script handles the error", function()
    load_flow([[ConversationStep { step_id = "call", step_type = "action", timeout = 1,
        next_steps = { "end" }, run = function(ctx)
          local _, err = pcall(ctx.http, ctx, { url = "http://x/", timeout = 60 })
          err.code, err.message, err.turn = 5, nil, true
        end },]], 'start_step = "call",')
    host.outside = function() return nil, { code = "http.timeout", message = "late" } end
    local turn = host:start()
    assert.same({ "failed", "step.timeout" }, { turn.status, turn.error.code })
  end)

  it("leave nothing behind when the turn is cancelled", function()
    calling()
    host:send("hi", function(op) return op.kind == "http" end)
    host:crash()
    assert.equal(0, task.count())
    assert.equal(1, host.cancelled)
  end)

  it("take as long an answer as limits.http_response says, or as they do", function()
    for given, longest in pairs { ["nil"] = 2000, ["1999"] = 1999, ["2001"] = false } do
      load_flow(([[ConversationStep { step_id = "call", step_type = "action",
        next_steps = { "end" },
        run = function(ctx) return (ctx:http { url = "http://x", max_bytes = %s }).body end },]])
        :format(given), 'start_step = "call",', nil, nil, { http_response_limit = 2000 })
      host.outside = echo
      local turn = host:start()
      assert.equal(longest and "completed" or "failed", turn.status)
      if longest then
        assert.equal(longest, host.requests[1].max_bytes)
      else
        assert.matches("raise limits.http_response", turn.error.message, 1, true)
      end
    end
  end)

  it("are refused when they are wrong, at the script's line", function()
    for code, message in pairs {
      ["ctx:http('x')"] = "ctx:http needs a table",
        ["ctx:http { url = 'ftp://x' }"] = "'url' must begin",
      ["ctx:http { url = 'http://x', bdy = 1 }"] = "unknown field 'bdy'; did you mean 'body'",
      ["ctx:http { url = 'http://x', body = {} }"] = "'body' must be a text",
      ["ctx:http { url = 'http://x', json = 1, body = '' }"] = "not both",
      ["ctx:http { url = 'http://x', json = print2 }"] = "json: value: a function cannot be kept",
      ["ctx:http { url = 'http://x', method = 'get it' }"] = "'method' must be",
      ["ctx:http { url = 'http://x', timeout = 9999 }"] = "'timeout' must be",
      ["ctx:http { url = 'http://x', max_bytes = 1e12 // 1 | 0 }"] = "'max_bytes' must be",
      ["ctx:http { url = 'http://x', headers = { ['a b'] = 'c' } }"] = "header names",
      ["ctx:http { url = 'http://x', headers = { a = 'c\\r\\nd: e' } }"] = "control characters",
      ["ctx:http { url = 'http://x', headers = { ['idempotency-key'] = 'c' } }"] = "by the host",
      ["table.sort({ 1, 2 }, function() local a = ctx:http { url = 'http://x' } return a end)"] =
        "cannot wait here",
    } do
      load_flow(([[ConversationStep { step_id = "call", step_type = "action",
        next_steps = { "end" },
        run = function(ctx) local answer = %s; return answer end },]]):format(code),
        'start_step = "call",', "local print2 = function() end")
      local turn = host:start()
      assert.equal("failed", turn.status)
      assert.matches("^scripts/shop/init.lua:%d+: ", turn.error.message)
      assert.matches(message, turn.error.message, 1, true)
      assert.same({ 0, 1 }, { #host.requests, #host.rows })
    end
  end)
end)
