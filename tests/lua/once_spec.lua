-- ctx:once, ctx:uuid, and what of ctx is the same when a turn goes on after a crash.
local Host = require "tests.lua.fake_host"
local task = require "tidemill.task"

local host

local function load_step(code, fields, before)
  host = Host.new(Host.script(([[
    ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?",
      input_schema = { type = "text" }, next_steps = { "act" } },
    ConversationStep { step_id = "act", step_type = "action", next_steps = { "end" },
      save_as = "got", %s run = function(ctx) %s end },]]):format(fields or "", code),
    'start_step = "ask",', before))
  host:load()
  host:start()
end

local function kinds()
  local list = {}
  for i, row in ipairs(host.rows) do list[i] = row.kind end
  return table.concat(list, " ")
end

local function calls()
  local list = {}
  for _, row in ipairs(host.rows) do
    if row.kind == "call" then list[#list + 1] = row end
  end
  return list
end

--- Says true when it is asked for the nth time.
local function nth(n)
  local asked = 0
  return function() asked = asked + 1; return asked == n end
end

local function crash()
  host:crash()
  host.now = host.now + 7777
end

--- Attempt after attempt to the turn's end. After a first crash there is a second one, before the
--- `again`th operation of what goes on.
local function finish(died, again)
  if died then
    crash()
    local kind = host.record.status == "active" and "resume" or "message"
    if not host:turn(kind, "hi", nth(again)) then crash() end
    if host.record.status == "waiting_input" then host:send "hi" end
  end
  while host.record.status == "active" do
    host.now = host.now + 50
    host:resume()
  end
end

--- Runs the turn again and again, with a crash before each operation in turn, until none is left to
--- crash before. `check(died)` sees each of them at its end.
local function crash_everywhere(begin, check)
  local n, died = 0, nil
  repeat
    n = n + 1
    for again = 1, 4 do
      begin()
      died = not host:send("hi", nth(n))
      finish(died, again)
      check(died)
    end
  until not died
  return n
end

after_each(function() assert.equal(0, task.count(), "a task was left behind") end)

describe("ctx:once", function()
  it("records what its function returns, and gives a copy of it", function()
    load_step([[
      local runs = 0
      local function fn()
        runs = runs + 1
        return { n = runs, list = tm.array {}, whole = 2^53 | 1 }
      end
      local a = ctx:once("it", fn)
      a.n = 99
      local b = ctx:once("it", fn)
      return { b.n, runs, math.type(b.whole), b.list, ctx:once("other", fn).n }]])
    local turn = host:send "hi"
    assert.same({ 1, 1, "integer", {}, 2 }, turn.state.got)
    assert.equal("turn begin call call turn", kinds())
    assert.matches("^2:once:%x+$", calls()[1].key)
    assert.equal("it", calls()[1].result.name)
    assert.is_nil(turn.runtime.once)
  end)

  it("gives nil, null and false as they were", function()
    local code = [[
      local a = ctx:once("nil", function() end)
      local b = ctx:once("null", function() return tm.null end)
      local c = ctx:once("false", function() return false end)
      ctx:http { url = "http://x/" }
      return { a == nil, b == tm.null, c == false }]]
    crash_everywhere(function() load_step(code) end, function()
      assert.same({ true, true, true }, host.record.state.got)
    end)
  end)

  local PAYING = [[
    local paid = ctx:once("pay", function()
      local answer = ctx:http { method = "POST", url = "http://x/pay",
        json = { by = ctx:uuid(), draw = ctx:random(1000) } }
      local again = ctx:http { url = "http://x/receipt" }
      return { id = answer.body, receipt = again.body }
    end)
    local receipt = ctx:http { url = "http://x/receipt" }
    local chance = { ctx:random(1, 1000000), ctx:uuid() }
    local ship = ctx:http { method = "POST", url = "http://x/ship", json = { paid, chance } }
    if ship.status ~= 200 then error "not shipped" end
    return { paid = paid, receipt = receipt.body, chance = chance, ship = ship.body }]]

  --- Shipping is refused for `refusals` times; every other answer is that of a counter by path.
  local function paying(refusals)
    load_step(PAYING, "max_retries = 5, retry_delay = 0,")
    host.outside = function(request)
      local path = request.url:match "%w+$"
      if path == "ship" and refusals > 0 then
        refusals = refusals - 1
        return { status = 503, headers = {}, body = "" }
      end
      return { status = 200, headers = {}, body = path .. (request.body or "") }
    end
  end

  it("makes the calls inside its function once, whenever the host dies", function()
    paying(0)
    local expected = host:send("hi").state
    local died_at = crash_everywhere(function() paying(0) end, function()
      assert.same(expected, host.record.state)
      local by_key = {}
      for _, request in ipairs(host.requests) do
        local key = request.headers["Idempotency-Key"]
        by_key[key] = request.url
      end
      local distinct = 0
      for _ in pairs(by_key) do distinct = distinct + 1 end
      assert.equal(4, distinct, "what is repeated is repeated under its key")
      assert.is_true(#host.requests <= 6, "once for each crash")
    end)
    assert.is_true(died_at > 10)
  end)

  it("holds for all attempts of the step, whenever the host dies", function()
    crash_everywhere(function() paying(2) end, function(died)
      assert.equal("completed", host.record.status)
      assert.is_nil(host.record.runtime.once)
      local pays, keys = 0, {}
      for _, request in ipairs(host.requests) do
        if request.url == "http://x/pay" then
          pays = pays + 1
          keys[request.headers["Idempotency-Key"]] = request.body
        end
      end
      assert.is_nil(next(keys, (next(keys))), "one key")
      assert.is_true(pays == 1 or died and pays <= 3)
      if not died then assert.equal("ask act! act! act", host:path()) end
      assert.matches("^ask .*act$", host:path())
    end)
  end)

  it("runs a function again that has failed, with the same keys in the next attempt", function()
    load_step([[
      local once = function()
        local answer = ctx:http { url = "http://x/" .. ctx:random(1000000) .. ctx:uuid() }
        if answer.status ~= 200 then return nil, { code = "no.luck", message = "no luck" } end
        return answer.body
      end
      return ctx:once("try", once)]], "max_retries = 3, retry_delay = 0,")
    local n = 0
    host.outside = function()
      n = n + 1
      return { status = n < 3 and 500 or 200, headers = {}, body = "third" }
    end
    host:send "hi"
    while host.record.status == "active" do host:resume() end
    assert.equal("third", host.record.state.got)
    assert.equal("ask act! act! act", host:path())
    assert.equal("no.luck", host:all("steps")[2].error.code)
    assert.equal(3, #host.requests)
    for i = 2, 3 do
      assert.equal(host.requests[1].url, host.requests[i].url)
      assert.equal(host.requests[1].headers["Idempotency-Key"],
        host.requests[i].headers["Idempotency-Key"])
    end
  end)

  it("is another one in another step, and when the step runs once more", function()
    host = Host.new(Host.script([[
      ConversationStep { step_id = "a", step_type = "action", next_steps = { "b" },
        run = function(ctx) ctx.state.a = ctx:once("n", function() return ctx:uuid() end) end },
      ConversationStep { step_id = "b", step_type = "action", next_steps = { "b", "end" },
        run = function(ctx)
          ctx.state.b = { ctx.state.b or tm.null, ctx:once("n", function() return ctx:uuid() end) }
        end,
        conditional_logic = { condition = function(ctx)
          return type(ctx.state.b[1]) == "table" and "out" or "again" end,
          again = "b", out = "end" } },]], 'start_step = "a",'))
    host:load()
    local state = host:start().state
    local seen = { [state.a] = true, [state.b[2]] = true, [state.b[1][2]] = true }
    local count = 0
    for _ in pairs(seen) do count = count + 1 end
    assert.equal(3, count)
  end)

  it("is asked for again before a new call leaves", function()
    load_step([[
      if ctx.config.box[1] == 1 then ctx:once("first", function() return 1 end) end
      return (ctx:http { url = "http://x/" }).body]])
    local system = require("tidemill.system").loaded "shop"
    system.config_view = { box = { 1 } }
    host:send("hi", function(op) return op.kind == "http" end)
    host:crash()
    system.config_view = { box = { 2 } }
    assert.equal("journal.nondeterminism", host:resume().error.code)
    assert.equal(1, #host.requests)
  end)

  it("ends with its turn when the journal cannot be written", function()
    load_step [[return pcall(ctx.once, ctx, "a", function() return 1 end)]]
    host.begin_error = { code = "store.full", message = "disk full", status = "unavailable" }
    assert.same({ "fail", "store.full" }, { host:send("hi").kind, host.ended.error.code })
  end)

  it("refuses what it cannot keep or would lose, at the script's line", function()
    for code, message in pairs {
      ["ctx:once(1, print2)"] = "the name must be a text",
      ["ctx:once('', print2)"] = "the name must be a text",
      ["ctx:once(('x'):rep(201), print2)"] = "the name must be a text",
      ["ctx:once('\\255', print2)"] = "the name must be a text",
      ["ctx:once('a', 5)"] = "a function expected, not a number",
      ["ctx:once('a', function() return print2 end)"] = "returned what cannot be kept: value: a",
      ["ctx:once('a', function() ctx.state.x = 1 end)"] = "the function wrote ctx.state",
      ["ctx:once('a', function() ctx.state = { x = 1 } end)"] = "the function wrote ctx.state",
      ["ctx:once('a', function() local v = ctx:once('b', print2) return v end)"] =
        "the function of another ctx:once runs",
      ["table.sort({ 1, 2 }, function() local a = ctx:once('a', print2) return a end)"] =
        "ctx:once cannot wait here",
      [ [[(function()
        local co = coroutine.create(function()
          ctx:once('a', function() coroutine.yield() end)
        end)
        coroutine.resume(co)
        local v = ctx:random()
        return v
      end)()]] ] = "must return before its coroutine yields",
    } do
      load_step(("local answer = %s; return answer"):format(code), nil,
        "local print2 = function() end")
      local turn = host:send "hi"
      assert.equal("failed", turn.status, code)
      assert.matches("^scripts/shop/init.lua:%d+: ", turn.error.message)
      assert.matches(message, turn.error.message, 1, true)
      assert.same({}, calls())
    end
  end)

  it("keeps 1 MiB of a step", function()
    load_step([[for i = 1, 5 do ctx:once(i .. "", function() return ("x"):rep(250000) end) end]])
    local turn = host:send "hi"
    assert.same({ "failed", "step.too_large" }, { turn.status, turn.error.code })
  end)

  it("is refused where a function only decides", function()
    host = Host.new(Host.script([[
      ConversationStep { step_id = "a", step_type = "decision", next_steps = { "end" },
        condition = function(ctx) return ctx:once("n", function() end) end },]],
      'start_step = "a",'))
    host:load()
    assert.matches("ctx:once cannot be used in a condition", host:start().error.message, 1, true)
  end)
end)

describe("what ctx says", function()
  it("is the same wherever the host died", function()
    local code = [[
      local function all()
        return { ctx.now, os.time(), ctx:random(), ctx:random(5, 500), ctx:uuid() }
      end
      local seen = { all() }
      for i = 1, 3 do
        ctx:http { method = "POST", url = "http://x/" .. i, json = seen }
        seen[#seen + 1] = all()
      end
      ctx:once("x", function() return all() end)
      seen[#seen + 1] = ctx:once("x", error)
      return seen]]
    load_step(code)
    local expected = host:send("hi").state
    local first = expected.got[1]
    local died_at = crash_everywhere(function() load_step(code) end, function()
      local got = host.record.state.got
      local later = got[1][1] - first[1] -- where nothing had been written of the step, it is later
      for i, seen in ipairs(expected.got) do
        local at = seen[1] + later
        assert.same({ at, at // 1000, seen[3], seen[4], seen[5] }, got[i])
      end
      for _, row in ipairs(host.rows) do
        if row.kind == "begin" then assert.equal(got[1][1], row.runtime.started) end
      end
    end)
    assert.is_true(died_at > 8)
  end)

  it("has ids that are none but UUIDs, each another", function()
    load_step [[
      local ids = {}
      for i = 1, 200 do ids[i] = ctx:uuid() end
      return ids]]
    local seen = {}
    for _, id in ipairs(host:send("hi").state.got) do
      local H = "%x"
      assert.matches(("^%s%%-%s%%-4%s%%-[89ab]%s%%-%s$"):format(H:rep(8), H:rep(4), H:rep(3),
        H:rep(3), H:rep(12)), id)
      assert.is_nil(seen[id])
      seen[id] = true
    end
  end)

  it("has other ids in a condition of the same step", function()
    host = Host.new(Host.script([[
      ConversationStep { step_id = "a", step_type = "action", save_as = "id",
        next_steps = { "b", "end" }, run = function(ctx) return ctx:uuid() end,
        conditional_logic = { condition = function(ctx) return ctx:uuid() == ctx.output end,
          [true] = "end", [false] = "b" } },
      ConversationStep { step_id = "b", step_type = "action", run = function() end,
        next_steps = { "end" } },]], 'start_step = "a",'))
    host:load()
    host:start()
    assert.equal("a b", host:path())
  end)
end)
