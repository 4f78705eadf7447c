-- What is recorded of a step whose call had left: that it made one, whatever became of the answer.
local Host = require "tests.lua.fake_host"
local task = require "tidemill.task"

local host

after_each(function() assert.equal(0, task.count(), "a task was left behind") end)

local BEFORE = [[
local function call(id, more)
  local step = ConversationStep { step_id = id, step_type = "action",
    run = function(ctx)
      local answer, err = ctx:http { method = "POST", url = "http://h/" .. id }
      return answer and answer.status, err
    end }
  for name, value in pairs(more or {}) do step[name] = value end
  return step
end
local function act(id, more)
  local step = call(id, more)
  step.run = function(ctx) return ctx.now end
  return step
end
]]

local ASK = [[ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?",
  save_as = "said", input_schema = { type = "text" }, next_steps = { "end" } },]]

local SLOW = [[ConversationStep { step_id = "p", step_type = "action", timeout = 1, NEXT
  run = function(ctx) ctx:log("slow") return ctx:http { url = "http://h/p" } end },]]

local function load(steps, flow)
  host = Host.new(Host.script(steps .. ASK, flow or 'start_step = "fork",', BEFORE))
  host:load()
  return host
end

local function fork(branches, more)
  return ([[ConversationStep { step_id = "fork", step_type = "parallel", branches = { %s },
    concurrency = 2, next_steps = { "ask" }, on_error = "ask", %s },]]):format(branches, more or "")
end

--- "step status", with a "*" where a call was made.
local function records()
  local list = {}
  for i, step in ipairs(host:all "steps") do
    list[i] = step.step_id .. " " .. step.status .. (step.called and "*" or "")
  end
  return table.concat(list, ", ")
end

--- What is logged takes a second.
local function slow_log(what, ...)
  local log = require "host.log"
  local write = log.write
  log.write = function() host.now = host.now + 1001 end
  what(...)
  log.write = write
end

--- The host dies where `stop` says, and goes on.
local function die(stop)
  host:start(nil, stop)
  host:crash()
  assert.is_truthy(host.unfinished)
end

--- Nobody answers, and the time passes when there is nothing else to do.
local function only_time_passes()
  host.pick = function(pending)
    local timer
    for i, op in ipairs(pending) do
      if op.kind == "timer" then timer = timer or i elseif op.kind ~= "http" then return i end
    end
    return timer
  end
end

local function in_flight(op) return op.kind == "http" end

describe("that a step made a call", function()
  it("is known when it was answered, refused, or cut off by the step's time", function()
    load('call("p", { next_steps = { "ask" }, on_error = "ask", timeout = 1 }),',
      'start_step = "p",')
    host:start()
    assert.equal("p completed*", records())
    for _, code in ipairs { "http.timeout", "http.connect" } do
      load('call("p", { next_steps = { "ask" }, on_error = "ask", timeout = 1 }),',
        'start_step = "p",')
      host.outside = function() return nil, { code = code, message = "late" } end
      host:start()
      assert.equal("p failed*", records())
    end
  end)

  it("is said of no step that made none", function()
    load('call("p", { next_steps = { "q" } }), act("q", { next_steps = { "ask" } }),',
      'start_step = "p",')
    host:start()
    assert.equal("p completed*, q completed", records())
  end)

  it("is not said of a step whose time was over before", function()
    load((SLOW:gsub("NEXT", 'next_steps = { "ask" }, on_error = "ask",')), 'start_step = "p",')
    slow_log(host.start, host)
    assert.equal(0, #host.requests)
    assert.equal("p failed", records())
  end)

  it("is known of branches that ran when it was over with them", function()
    load(fork([[l = { call("l1", { next_steps = { "l2" } }), call "l2" }, r = { call "r1" },]],
      'join = "any",'))
    host.pick = function(pending) -- nobody answers l2
      for i, op in ipairs(pending) do
        if op.url ~= "http://h/r1" or #host.requests == 3 then return i end
      end
    end
    host:start(nil, function() return #host.requests == 3 end)
    host.pick = function(pending)
      for i, op in ipairs(pending) do
        if op.url ~= "http://h/l2" then return i end
      end
    end
    host:pump()
    assert.equal("fork completed, l1 completed*, l2 cancelled*, r1 completed*", records())
  end)

  it("is known of branches whose step's time was over", function()
    load(fork([[l = { call "l1" }, r = { act("r1", { next_steps = { "r2" } }), call "r2" },]],
      "timeout = 5,"))
    only_time_passes()
    host:start()
    assert.equal("fork failed, l1 cancelled*, r1 completed, r2 cancelled*", records())
  end)

  it("is known when a limit stopped a step beside it", function()
    load(fork [[l = { call "l1" }, r = { act "r1" },]])
    host:start(nil, in_flight)
    host.pending = {}
    task.dispatch(host.turn_id, "failed", { code = "script.cpu", message = "too long" })
    host:pump()
    assert.equal("fork failed, l1 cancelled*, r1 completed", records())
  end)

  it("is known after a crash before the answer, though the step never asks again", function()
    load((SLOW:gsub("NEXT", 'next_steps = { "ask" }, on_error = "ask",')), 'start_step = "p",')
    die(in_flight)
    slow_log(host.resume, host)
    assert.equal(1, #host.requests)
    assert.equal("p failed*", records())
  end)

  it("is known of a branch after a crash before the answer", function()
    load(fork(([[l = { %s }, r = { act("r1", { next_steps = { "r2" } }), act "r2" },]])
      :format((SLOW:gsub("NEXT", "")))))
    die(in_flight)
    slow_log(host.resume, host)
    assert.equal(1, #host.requests)
    assert.equal("fork failed, p failed*, r1 completed, r2 completed", records())
  end)

  it("is known after a crash when its conversation had lasted too long by then", function()
    host = Host.new((Host.script('call("p", { next_steps = { "ask" } }),' .. ASK,
      'start_step = "p",', BEFORE):gsub("return tm.system {",
      "%0 orchestrator = { performance_config = { max_workflow_duration = 60 } },")))
    host:load()
    die(in_flight)
    host.now = host.now + 60000
    assert.equal("expired", host:resume().status)
    assert.equal("p failed*", records())
  end)

  it("is not said of the steps behind the one that was interrupted", function()
    load('call("p", { next_steps = { "q" } }), act("q", { next_steps = { "ask" } }),',
      'start_step = "p",')
    die(in_flight)
    host:resume()
    assert.equal("p completed*, q completed", records())
  end)

  it("stands in the begin row, with what the step says of it", function()
    for irreversible, stays in pairs { ["true"] = false, ["false"] = true, ["nil"] = false } do
      load(('call("p", { next_steps = { "q" }, irreversible = %s }), call("q", '
        .. '{ next_steps = { "ask" } }),'):format(irreversible), 'start_step = "p",')
      local turn = host:start()
      assert.equal("begin", host.rows[1].kind)
      assert.equal(stays or nil, host.rows[1].runtime.stays)
      assert.equal(0, host.rows[1].runtime.step_seq)
      assert.is_nil(host.rows[3].runtime.stays)
      assert.is_nil(turn.runtime.stays)
    end
  end)
end)

describe("correct", function()
  local STEPS = [[
    ConversationStep { step_id = "first", step_type = "user_input", prompt = "?", save_as = "name",
      input_schema = { type = "text" }, next_steps = { "pay" } },
    ConversationStep { step_id = "pay", step_type = "action", next_steps = { "ask" }, timeout = 1,
      max_retries = 1, save_as = "paid", %s run = function(ctx)
        if ctx.step.attempt == 1 then ctx:http { url = "http://h/pay/" .. ctx.state.name } end
        return ctx.state.name
      end },]]

  local function paid(more)
    load(STEPS:format(more or ""), 'start_step = "first",')
    host.outside = function() return nil, { code = "http.timeout", message = "late" } end
    host:start()
    assert.equal("suspend", host:send("Ada").kind)
    assert.equal("ask", host:resume().step)
    assert.equal("first completed, pay failed*, pay completed", records())
    return host:signal("command", { command = "correct", name = "name", input = "Bo" })
  end

  it("knows of a call that an attempt before made, without its answer", function()
    local turn = paid()
    assert.same({ "fail", "rollback.irreversible" }, { turn.kind, turn.error.code })
    assert.matches("taken back: pay;", turn.error.message)
    assert.equal("Bo", paid("irreversible = false,").state.name)
  end)
end)
