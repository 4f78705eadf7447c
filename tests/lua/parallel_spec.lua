-- Steps with branches: what runs beside what, what is kept, and what a crash does not repeat.
local Host = require "tests.lua.fake_host"
local json = require "host.json"
local system = require "tidemill.system"
local task = require "tidemill.task"

local host

--- Every step of a branch that calls does so by its own id, so that requests can be told apart.
local BEFORE = [[
local function call(id, more)
  local step = ConversationStep { step_id = id, step_type = "action", save_as = id,
    run = function(ctx)
      local a, err = ctx:http { url = "http://x/" .. id }
      if not a then return a, err end
      return { body = a.body, now = ctx.now, drawn = ctx:random(1000), seq = ctx.step.seq }
    end }
  for name, value in pairs(more or {}) do step[name] = value end
  return step
end
local function act(id, run, more)
  local step = ConversationStep { step_id = id, step_type = "action", save_as = id, run = run }
  for name, value in pairs(more or {}) do step[name] = value end
  return step
end
]]

local function fork(branches, more)
  return ([[ConversationStep { step_id = "fork", step_type = "parallel", save_as = "got",
    branches = { %s }, next_steps = { "last" }, %s },]]):format(branches, more or "")
end

local LAST = [[ConversationStep { step_id = "last", step_type = "user_input", prompt = "?",
  input_schema = { type = "text" }, next_steps = { "end" } },]]

local function script(steps, flow, system_fields, before)
  return Host.script(steps .. LAST, flow or 'start_step = "fork",', BEFORE .. (before or ""),
    system_fields)
end

local function with_flows(text, flows)
  return (text:gsub("flows = {", function(found) return found .. flows end, 1))
end

local function load(text, config)
  host = Host.new(text, config)
  host.outside = function(request)
    host.now = host.now + 10
    return { status = 200, headers = {}, body = request.url:match "[^/]*$" }
  end
  host:load()
  return host
end

local function findings(text)
  Host.new(text)
  local _, found = system.load "shop"
  local lines = {}
  for i, item in ipairs(found.items) do lines[i] = item.text .. " [" .. item.rule .. "]" end
  return table.concat(lines, "\n")
end

local function urls()
  local list = {}
  for i, request in ipairs(host.requests) do list[i] = request.url:match "[^/]*$" end
  return table.concat(list, " ")
end

--- "branch:step status", in the order of the records.
local function records()
  local list = {}
  for i, step in ipairs(host:all "steps") do
    assert.equal(i, step.seq)
    list[i] = (step.branch and step.branch .. ":" or "") .. step.step_id .. " " .. step.status
  end
  return list
end

local THREE = [[
  a = { call("a1", { next_steps = { "a2" } }), call "a2" },
  b = { call("b1", { next_steps = { "b2" } }),
        act("b2", function(ctx) return ctx.state.b1.body .. ctx.state.base end,
          { next_steps = { "b3" } }), call "b3" },
  c = { act("c1", function() return 7 end) },]]

after_each(function() assert.equal(0, task.count(), "a task was left behind") end)

local BASE = 'start_step = "fork", variables = { base = "!" },'

describe("a parallel step", function()
  it("runs its branches beside each other, and brings what each came to", function()
    load(script(fork(THREE, "concurrency = 3,"), BASE))
    local most = 0
    local turn = host:start(nil, function()
      local under_way = 0
      for _, op in ipairs(host.pending) do
        under_way = under_way + (op.kind == "http" and 1 or 0)
      end
      most = math.max(most, under_way)
    end)
    assert.equal("waiting_input", turn.status)
    assert.equal(2, most)
    assert.equal("a1 b1 a2 b3", urls())
    assert.same({ "a2", "b3", 7 }, { turn.state.got.a.body, turn.state.got.b.body,
      turn.state.got.c })
    assert.same({ "fork completed", "a:a1 completed", "a:a2 completed", "b:b1 completed",
      "b:b2 completed", "b:b3 completed", "c:c1 completed" }, records())
    assert.same({ nil, nil, "!" }, { turn.state.a1, turn.state.c1, turn.state.base },
      "what branches wrote is theirs")
  end)

  it("runs one branch after the other unless told otherwise", function()
    load(script(fork(THREE), BASE))
    host:start()
    assert.equal("a1 a2 b1 b3", urls())
    local at_once = script(fork(THREE), BASE):gsub("return tm.system {",
      "%0 orchestrator = { performance_config = { parallel_execution = true } },")
    load(at_once)
    host:start()
    assert.equal("a1 b1 a2 b3", urls())
    load(script(fork(THREE), BASE), { parallel_execution = true })
    host:start()
    assert.equal("a1 b1 a2 b3", urls())
    load(script(fork(THREE, "concurrency = 1,"), BASE), { parallel_execution = true })
    host:start()
    assert.equal("a1 a2 b1 b3", urls())
  end)

  it("gives no two calls the same key, and each branch numbers of its own", function()
    load(script(fork [[a = { call "same" }, b = { call "same" },]]))
    local got = host:start().state.got
    assert.not_equal(host.requests[1].headers["Idempotency-Key"],
      host.requests[2].headers["Idempotency-Key"])
    assert.not_equal(got.a.drawn, got.b.drawn)
    for _, row in ipairs(host.rows) do
      if row.key then assert.matches("^1:[ab]%.1:http:%x+:1@0$", row.key) end
    end
  end)

  it("lets merge say what comes of it", function()
    load(script(fork(THREE, [[merge = function(ctx, results)
      return { results.a.status, results.b.state.b2, results.c.output + #ctx.state.base }
    end,]]), BASE))
    assert.same({ "completed", "b1!", 8 }, host:start().state.got)
    load(script(fork(THREE, "merge = function() return nil, 'no use' end,"), BASE))
    assert.equal("no use", host:start().error.message)
    load(script(fork(THREE, "merge = function(ctx) ctx.state.x = 1 end,"), BASE))
    assert.matches("ctx.state.x cannot be written", host:start().error.message, 1, true)
    load(script(fork(THREE, "merge = function(ctx) local a = ctx:http {} return a end,"), BASE))
    assert.matches("ctx:http cannot be used in merge", host:start().error.message, 1, true)
    load(script(fork(THREE, "merge = function(_, results) return { tostring } end,"), BASE))
    assert.matches("merge returned what cannot be kept", host:start().error.message, 1, true)
  end)

  it("puts what agents said into the transcript by the names of the branches", function()
    local says = [[ConversationStep { step_id = "%s", step_type = "agent_response", agent = clerk,
      response = "%s says {base}" }]]
    load(script(fork(("b = { %s }, a = { call('a1', { next_steps = { 'x' } }), %s },"):format(
      says:format("x", "b"), says:format("x", "a")), "concurrency = 2,"), BASE))
    local turn = host:start()
    assert.same({ b = "b says !", a = "a says !" }, turn.state.got)
    assert.same({ "a says !", "b says !" }, { turn.messages[1].text, turn.messages[2].text })
    assert.same({ 1, 2 }, { turn.messages[1].seq, turn.messages[2].seq })
    assert.same({ nil, nil, 1, 2 }, { turn.steps[1].reply, turn.steps[2].reply,
      turn.steps[3].reply, turn.steps[4].reply })
  end)
end)

describe("what agents say in branches", function()
  local SAYS = [[ConversationStep { step_id = "%s", step_type = "agent_response", agent = clerk,
    response = "%s says {base}", next_steps = { %s } }]]

  local function said(turn)
    local texts, kept = {}, {}
    for i, message in ipairs(turn.messages) do texts[i] = message.text end
    for _, step in ipairs(turn.steps) do
      if step.type == "agent_response" then kept[#kept + 1] = step.reply or step.output end
    end
    return { texts, kept }
  end

  it("is a reply only where the branch counts", function()
    load(script(fork(("a = { %s, call 'a1' }, b = { %s }"):format(SAYS:format("x", "a", "'a1'"),
      SAYS:format("y", "b", "'end'")), "concurrency = 2, join = 'any',"), BASE))
    local turn = host:start()
    assert.same({ { "b says !", "?" }, { "a says !", 1 } }, said(turn))
    assert.same({ 1, 2 }, { turn.messages[1].seq, turn.messages[2].seq })
  end)

  it("is none where the step fails", function()
    load(script(fork(("a = { %s }, b = { %s, act('no', function() return nil, 'no' end) }")
      :format(SAYS:format("x", "a", "'end'"), SAYS:format("y", "b", "'no'")),
      "on_error = 'last',"), BASE))
    assert.same({ { "?" }, { "a says !", "b says !" } }, said(host:start()))
  end)
end)

--- Calls whose steps are listed end last, in that order.
local function slow(names)
  local rank = {}
  for name in names:gmatch "%S+" do rank["http://x/" .. name] = names:find(name, 1, true) end
  return function(pending)
    local best = 1
    for i, op in ipairs(pending) do
      if (rank[op.url] or 0) < (rank[pending[best].url] or 0) then best = i end
    end
    return best
  end
end

--- Operations end in an order that looks like none.
local function shuffled(seed)
  return function(pending)
    seed = (seed * 1103515245 + 12345) % 2147483648
    return seed // 65536 % #pending + 1
  end
end

describe("join", function()
  local function joined(join, more)
    load(script(fork([[
      a = { act("a1", function(ctx)
        local first = ctx:http { url = "http://x/a1" }
        local second = ctx:http { url = "http://x/a2" }
        return { first.body, second.body } end) },
      b = { call "b1" },
      c = { call("c1", { next_steps = { "c2" } }), call "c2" },]],
      ("concurrency = 3, join = %s, merge = function(_, r) return r end,"):format(join)
        .. (more or "")), 'start_step = "fork",'))
    host.pick = slow "b1 a1 c2"
    local turn = host:start()
    return turn
  end

  it("any cancels the others when the first is there", function()
    local got = joined('"any"').state.got
    assert.same({ "cancelled", "completed", "cancelled" },
      { got.a.status, got.b.status, got.c.status })
    assert.equal("b1", got.b.output.body)
    assert.same({ "fork completed", "a:a1 cancelled", "b:b1 completed", "c:c1 completed",
      "c:c2 cancelled" }, records())
    assert.equal("a1 b1 c1 c2", urls())
    assert.equal(2, host.cancelled, "the calls of the losers")
    assert.equal("completed", host:send("x").status)
  end)

  it("a number waits for so many, and no more count", function()
    local got = joined("2").state.got
    local count = 0
    for _, result in pairs(got) do count = count + (result.status == "completed" and 1 or 0) end
    assert.equal(2, count)
  end)

  it("waits for the row that a loser writes, which then goes no further", function()
    load(script(fork([[a = { call "a1" }, b = { act("b1", function(ctx)
      ctx:http { url = "http://x/b1" }
      return (ctx:http { url = "http://x/b2" }).body end) },]], 'concurrency = 2, join = "any",')))
    assert.equal("waiting_input", host:start().status)
    assert.equal("a1 b1", urls())
    assert.same({ "begin", "call", "call", "turn" }, { host.rows[1].kind, host.rows[2].kind,
      host.rows[3].kind, host.rows[4].kind })
    assert.matches("^1:b%.1:", host.rows[3].key)
    assert.same({ "fork completed", "a:a1 completed", "b:b1 cancelled" }, records())
  end)
end)

describe("a branch that fails", function()
  local FAILING = [[
    a = { act("a1", function() error "no a" end) },
    b = { call("b1", { next_steps = { "b2" } }), call "b2" },
    c = { act("c1", function(ctx) return nil, ctx:http({ url = "http://x/c1" }).body end) },]]

  it("fails the step that needs it, and the others are cancelled", function()
    load(script(fork(FAILING, "concurrency = 3,")))
    local turn = host:start()
    assert.same({ "failed", "parallel.failed", "fork" }, { turn.status, turn.error.code,
      turn.error.step_id })
    assert.matches("the branch 'a' has failed in its step 'a1': scripts/shop/init.lua:%d+: no a",
      turn.error.message)
    assert.same({ "fork failed", "a:a1 failed", "b:b1 cancelled", "c:c1 cancelled" }, records())
  end)

  it("may leave a way out", function()
    load(script(fork(FAILING, 'concurrency = 3, on_error = "last",')))
    assert.same({ "waiting_input", nil }, { host:start().status, host.ended.state.got })
  end)

  it("does not matter while enough others are left", function()
    load(script(fork(FAILING, 'concurrency = 3, join = 1,')))
    local turn = host:start()
    assert.same({ "waiting_input", "b2" }, { turn.status, turn.state.got.b.body })
    assert.same({ "fork completed", "a:a1 failed", "b:b1 completed", "b:b2 completed",
      "c:c1 failed" }, records())
    load(script(fork(FAILING, 'concurrency = 3, join = 2,')))
    turn = host:start()
    assert.equal("parallel.failed", turn.error.code)
    assert.matches("and 1 more have failed", turn.error.message, 1, true)
  end)

  it("is tried again, with its number of attempts across a crash", function()
    local text = script(fork([[
      a = { act("a1", function(ctx)
        local answer, err = ctx:http { url = "http://x/a" .. ctx.step.attempt }
        if ctx.step.attempt < 3 then error("attempt " .. ctx.step.attempt) end
        return answer.body end, { max_retries = 2, retry_delay = 5 }) },
      b = { call "b1" },]], "concurrency = 2,"))
    load(text)
    assert.equal("a3", host:start().state.got.a)
    assert.equal("a1 b1 a2 a3", urls())
    assert.same({ "fork completed", "a:a1 failed", "a:a1 failed", "a:a1 completed",
      "b:b1 completed" }, records())
    load(text)
    host:start(nil, function(op) return op.kind == "timer" and #host.requests == 3 end)
    host:crash()
    local before = host.now
    assert.equal("a3", host:resume().state.got.a)
    assert.is_true(host.now >= before + 10000, "the pause is kept")
    assert.equal("a1 b1 a2 a3", urls())
  end)

  it("keeps what ctx:once has got for its further attempts, whenever the host dies", function()
    local text = script(fork([[
      a = { act("a1", function(ctx)
        local kept = ctx:once("kept", function()
          return ctx:http({ url = "http://x/kept" }).body
        end)
        local value, err = ctx:once("late", function()
          local answer = ctx:http { url = "http://x/late" }
          if ctx.step.attempt < 3 then return nil, "not yet" end
          return answer.body .. ctx.now
        end)
        if not value then return nil, err end
        return { kept, ctx:http({ url = "http://x/last" }).body }
      end, { max_retries = 2, retry_delay = 5 }) },
      b = { call "b1" },]], "concurrency = 2,"))
    local at = 0
    repeat
      load(text)
      at = at + 1
      local ran, died = 0, false
      host:start(nil, function()
        ran = ran + 1
        died = ran == at
        return died
      end)
      if died then
        host:crash()
        host.now = host.now + 50000
        if host.unfinished then host:resume() else host:start() end
      end
      assert.same({ "kept", "last" }, host.record.state.got.a)
      local kept, late = select(2, urls():gsub("kept", "")), select(2, urls():gsub("late", ""))
      assert.is_true(kept <= 2 and late <= 4 and kept + late <= (died and 5 or 4), urls())
    until not died
    assert.equal("kept b1 late late late last", urls())
  end)

  it("lets the conversation wait at the step where the system says so", function()
    load((script(fork([[a = { call "a1" }, b = { act("b1", function(ctx)
      if not ctx.input then error "nobody has said anything" end
      return ctx.input end) },]], "concurrency = 2,")):gsub("return tm.system {",
      "%0 orchestrator = { error_config = { auto_recovery = true } },")))
    local turn = host:start()
    assert.same({ "waiting_input", "fork" }, { turn.status, turn.step })
    turn = host:send "now"
    assert.same({ "last", "now", "a1" }, { turn.step, turn.state.got.b, turn.state.got.a.body })
  end)

  it("has the time of its step at most", function()
    load(script(fork([[a = { call "a1" }, b = { call "b1" },]], "concurrency = 2, timeout = 5,")))
    local turn = host:start()
    assert.same({ "failed", "step.timeout" }, { turn.status, turn.error.code })
    assert.same({ "fork failed", "a:a1 cancelled", "b:b1 cancelled" }, records())
  end)

  it("fails the turn when the journal cannot be written", function()
    load(script(fork([[a = { call "a1" }, b = { call "b1" },]], "concurrency = 2,")))
    host.begin_error = { code = "store.full", message = "disk full", status = "unavailable" }
    local turn = host:start()
    assert.same({ "fail", "store.full", "unavailable" },
      { turn.kind, turn.error.code, turn.error.status })
  end)

  it("of the runtime itself fails the turn", function()
    load(script(fork([[a = { call "a1" }, b = { call "b1" },]], "concurrency = 2,")))
    local frames = require "tidemill.frames"
    local is_nested = frames.is_nested
    frames.is_nested = function() error "broken" end
    local turn = host:start()
    frames.is_nested = is_nested
    assert.equal("fail", turn.kind)
  end)

  it("that reaches a limit fails the step, whose way out is taken", function()
    load(script(fork([[a = { call "a1" }, b = { call "b1" },]],
      'concurrency = 2, on_error = "last",')))
    host:start(nil, function(op) return op.kind == "call" end)
    host.pending = {}
    task.dispatch(host.turn_id, "failed", { code = "script.cpu", message = "too long" })
    host:pump()
    assert.equal("waiting_input", host.ended.status)
    assert.same({ "fork failed", "a:a1 cancelled", "b:b1 cancelled" }, records())
  end)
end)

describe("a crash", function()
  local NESTED = [[tm.ConversationFlow { flow_id = "inner", start_step = "fork",
    variables = { base = "?" }, steps = { %s
    ConversationStep { step_id = "last", step_type = "action", run = function() end,
      next_steps = { "end" } } } },
    tm.ConversationFlow { flow_id = "one", start_step = "o1", variables = { base = "", o2 = "" },
      steps = { call("o1", { next_steps = { "o2" } }), act("o2", function(ctx)
        return ctx.state.base .. ctx.state.o1.body end, { next_steps = { "end" } }) } },]]
  local BRANCHES = THREE .. [[
    d = { ConversationStep { step_id = "sub", step_type = "subflow", flow = "one", result = "o2",
        save_as = "o", arguments = { base = "{base}" }, next_steps = { "d2" } },
      act("d2", function(ctx)
        return { ctx.state.o, ctx:http({ url = "http://x/d2" }).body } end) },
    e = "one", f = { call "f1" },]]
  local OUTER = [[ConversationStep { step_id = "before", step_type = "action",
      run = function(ctx) return ctx:http({ url = "http://x/before" }).body end,
      next_steps = { "in" } },
    ConversationStep { step_id = "in", step_type = "subflow", flow = "inner", result = "got",
      save_as = "got", next_steps = { "after" } },
    ConversationStep { step_id = "after", step_type = "action", save_as = "after",
      run = function(ctx) return ctx:http({ url = "http://x/after" }).body end,
      next_steps = { "last" } },]]

  local function nested(more)
    return with_flows(script(OUTER, 'start_step = "before",'),
      NESTED:format(fork(BRANCHES, more)))
  end

  --- Without what depends on when something happened.
  local function result()
    local list = host:all "steps"
    for _, step in ipairs(list) do step.start, step["end"] = nil, nil end
    local text = json.encode { host.record.state, list, host:all "messages" }
    return json.decode((text:gsub('"now":%d+', '"now":0')))
  end

  --- The host dies before its nth operation and goes on; nth operations of all its lives.
  local function die_at(text, at, pick)
    load(text)
    host.pick = pick
    local ran = 0
    local function stop()
      ran = ran + 1
      return ran == at
    end
    if host:start(nil, stop) then return false end
    host:crash()
    local turn = host.unfinished and host:resume() or host:start()
    assert.equal("waiting_input", turn.status)
    return true
  end

  local function times(list, name)
    local count = 0
    for _, request in ipairs(list) do
      if request.headers["Idempotency-Key"] == name then count = count + 1 end
    end
    return count
  end

  --- A call may leave twice only when the host died before it was recorded.
  local function check_calls(recorded_at_crash)
    for _, request in ipairs(host.requests) do
      local key = request.headers["Idempotency-Key"]
      assert.is_true(times(host.requests, key) <= 2)
      if recorded_at_crash[key] then assert.equal(1, times(host.requests, key), request.url) end
    end
  end

  local crypto = require "host.crypto"

  local function recorded()
    local keys = {}
    for _, row in ipairs(host.rows) do
      if row.key then keys[crypto.digest("c1" .. row.key:gsub("@%d+$", ""), 32)] = true end
    end
    return keys
  end

  local function dies_anywhere(more, pick)
    return function()
      local text = nested(more)
      load(text)
      assert.equal("waiting_input", host:start().status)
      local expected, whole = result(), #host.requests
      assert.same({ "?o1", "d2" }, expected[1].got.d)
      assert.equal("?o1", expected[1].got.e)
      local at, before = 0, {}
      local resume = Host.resume
      rawset(Host, "resume", function(self)
        before = recorded()
        return resume(self)
      end)
      repeat
        at = at + 1
        local died = die_at(text, at, pick and pick(at))
        check_calls(before)
        before = {}
        assert.same(expected, result())
      until not died
      rawset(Host, "resume", resume)
      assert.is_true(at > 2 * whole, "every row and every call")
    end
  end

  it("anywhere changes nothing: branches in turn", dies_anywhere "")
  it("anywhere changes nothing: two at a time", dies_anywhere "concurrency = 2,")
  it("anywhere changes nothing: all at once", dies_anywhere "concurrency = 6,")
  it("anywhere changes nothing, in whatever order the answers come",
    dies_anywhere("concurrency = 6,", shuffled))

  it("does not run completed steps of a branch again, nor change their time", function()
    load(script(fork(THREE, "concurrency = 3,"), BASE))
    host:start(nil, function(op) return op.kind == "http" and #host.requests == 4 end)
    host:crash()
    local kept = {}
    for _, row in ipairs(host.rows) do
      if row.key and row.key:find ":kept:" then kept[#kept + 1] = row.key end
    end
    assert.same({ "1:a:kept:1", "1:b:kept:1" }, kept)
    host.now = host.now + 50000
    local turn = host:resume()
    assert.equal("a1 b1 a2 b3 a2 b3", urls())
    for _, step in ipairs(turn.steps) do
      if step.step_id == "a1" or step.step_id == "b2" then
        assert.is_true(step["end"] < 1050000, step.step_id)
      end
      if step.step_id == "a2" then assert.is_true(step.start < 1050000, "as when it first ran") end
    end
  end)

  it("goes on from what a host wrote that knew no events", function()
    load(script(fork(THREE, "concurrency = 3,"), BASE))
    host:start(nil, function(op) return op.kind == "http" and #host.requests == 4 end)
    host:crash()
    local kept = 0
    for key, row in pairs(host.calls) do
      if key:find ":kept:" then kept, row.events = kept + 1, nil end
    end
    assert.equal(2, kept)
    assert.equal("waiting_input", host:resume().status)
  end)

  it("does not change the time of a first step", function()
    load(script(fork(THREE, "concurrency = 3,"), BASE))
    host:start(nil, function(op) return op.kind == "call" and #host.rows == 2 end)
    host:crash()
    host.now = host.now + 50000
    host:resume()
    local first = host:all("steps")[2]
    assert.same({ "a1", 1000000, 1000000 }, { first.step_id, first.start, first.output.now })
  end)

  it("leaves calls that differ afterwards an error", function()
    load(script(fork([[a = { act("a1", function(ctx)
      ctx:http { url = "http://x/" .. ctx.config.box[1] }
      return (ctx:http { url = "http://x/second" }).body end) }, b = { call "b1" },]],
      'concurrency = 2, join = "any", on_error = "last",')))
    local shop = system.loaded "shop"
    shop.config_view = { box = { "one" } }
    host:start(nil, function(op) return op.kind == "call" and host.rows[2] end)
    host:crash()
    shop.config_view = { box = { "two" } }
    local turn = host:resume()
    assert.same({ "failed", "journal.nondeterminism" }, { turn.status, turn.error.code })
  end)
end)

describe("the branches of a parallel step", function()
  local function found(branches, more, flows)
    return findings(with_flows(script(fork(branches, more)), flows or ""))
  end

  it("are checked like a flow's steps", function()
    assert.equal("", found "a = { act('a1', function() end) }, b = { call 'b1' },")
    assert.matches("step 'fork': 'branches' must be 1 to 64", found "", 1, true)
    assert.matches("'join' = 1 is more than there are", found("", "join = 'any',"), 1, true)
    assert.matches("flow 'main/fork/a', step 'a1': next_steps: there is no step 'a3'; did you",
      found "a = { call('a1', { next_steps = { 'a3' } }), call 'a2' },", 1, true)
    assert.matches("flow 'main/fork/a', step 'a1': 'next_steps' is missing",
      found "a = { call 'a1', call 'a2' },", 1, true)
    assert.matches("the name 'a b' must be made of", found "['a b'] = { call 'a1' },", 1, true)
    assert.matches("branch 'a': must be a list of steps", found "a = { }, b = 7,", 1, true)
    assert.matches("there is no flow 'mian'; did you mean 'main'?", found "a = 'mian',", 1, true)
    assert.matches("step 1: must be a ConversationStep", found "a = { 5 },", 1, true)
  end)

  it("have a join and a concurrency that can be", function()
    local one = "a = { call 'a1' },"
    assert.equal("", found(one, "join = 1, concurrency = 15,"))
    assert.matches("'join' = 2 is more than there are branches", found(one, "join = 2,"), 1, true)
    assert.matches("'join' must be \"all\", \"any\" or how many branches, not 'most'",
      found(one, "join = 'most',"), 1, true)
    assert.matches("'join' must be", found(one, "join = 0,"), 1, true)
    assert.matches("'concurrency' must be at most 15", found(one, "concurrency = 16,"), 1, true)
    assert.matches("'max_retries' does not belong to 'parallel'", found(one, "max_retries = 1,"),
      1, true)
  end)

  it("wait neither for people nor for time, wherever they lead", function()
    local ask = [[ConversationStep { step_id = "%s", step_type = "user_input", prompt = "?",
      input_schema = { type = "text" }, next_steps = { "end" } }]]
    assert.matches("step 'q': is a 'user_input': a branch cannot wait for people or time",
      found("a = { " .. ask:format "q" .. " },"), 1, true)
    local flow = [[tm.ConversationFlow { flow_id = "asks", start_step = "q", steps = { %s } },]]
    local asks = flow:format(ask:format "q")
    assert.matches("branch 'a': leads to the step 'q' of the flow 'asks', which is a 'user_input'",
      found("a = 'asks',", "", asks), 1, true)
    local sub = [[a = { ConversationStep { step_id = "s", step_type = "subflow", flow = "asks",
      next_steps = { "end" } } },]]
    assert.matches("branch 'a': leads to the step 'q' of the flow 'asks'", found(sub, "", asks), 1,
      true)
    local go = [[a = { ConversationStep { step_id = "s", step_type = "decision",
      condition = function() return "x" end, next_steps = { "end" },
      conditional_logic = { x = "flow:asks", default = "end" } } },]]
    assert.matches("branch 'a': leads to the step 'q' of the flow 'asks'", found(go, "", asks), 1,
      true)
    assert.matches("branches in branches are not supported yet",
      found("a = { " .. fork("x = { call 'x1' }") .. " },"), 1, true)
  end)

  it("lead to sealing flows only from one that seals", function()
    local sealed = [[tm.ConversationFlow { flow_id = "secret", start_step = "s1",
      settings = { encrypt_sensitive_data = true },
      steps = { call("s1", { next_steps = { "end" } }) } },]]
    Host.new(with_flows(script(fork "a = 'secret',"), sealed), { can_seal = true })
    local _, items = system.load "shop"
    assert.matches("leads to the flow 'secret', which seals what it stores; let the flow 'main'",
      items.items[1].text, 1, true)
  end)

  it("are looked at by check, with the names of the flow around them", function()
    local function checked(response)
      host = Host.new(script(fork(([[a = { ConversationStep { step_id = "say",
        step_type = "agent_response", agent = clerk, response = "%s" } },]]):format(response)),
        'start_step = "fork", variables = { base = 1 },'))
      local texts = {}
      for i, item in ipairs(json.decode(task.dispatch(0, "check", "shop")).items) do
        texts[i] = item.text
      end
      return table.concat(texts, "\n")
    end
    assert.equal("", checked "{base}")
    assert.matches("flow 'main/fork/a', step 'say': 'response' names {bse}, which nothing sets",
      checked "{bse} {base}", 1, true)
  end)
end)
