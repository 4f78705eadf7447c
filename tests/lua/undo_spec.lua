-- Going back: what a rollback leaves for the next turn, and `undo` functions.
local Host = require "tests.lua.fake_host"
local task = require "tidemill.task"

local host

local function load_flow(steps, flow, before)
  host = Host.new(Host.script(steps, flow, before))
  host:load()
  return host
end

after_each(function() assert.equal(0, task.count(), "a task was left behind") end)

describe("a record that was brought back", function()
  local FLOW = [[start_step = "ask", interrupts = { { flow = "aside", phrases = { "hours" } } },
      steps = { ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?",
        timeout = 5, input_schema = { type = "text", min_length = 2 }, next_steps = { "ask" } } } },
    tm.ConversationFlow { flow_id = "aside", start_step = "say",]]
  local STEPS = [[ConversationStep { step_id = "say", step_type = "user_input", prompt = "!",
    timeout = 30, input_schema = { type = "text" }, next_steps = { "end" } } ]]

  local function bring_back(row, by, seq)
    local record = host.record
    record.status, record.step, record.state = row.status, row.step, row.state
    record.runtime = row.runtime
    record.runtime.restored = { moved = by, step_seq = seq }
  end

  it("has the whole time of its prompt again", function()
    load_flow(STEPS, FLOW)
    local asked = host:start()
    host.now = host.now + 100000
    bring_back(asked, 100000, 7)
    host.now = host.now + 4999
    local turn = host:send "fine"
    assert.same({ "waiting_input", "ask" }, { turn.status, turn.step })
    assert.equal(8, turn.steps[1].seq)
    assert.is_nil(turn.runtime.restored)
    host.now = host.now + 5000
    assert.equal("expired", host:wake().status)
  end)

  it("has no more time for the whole conversation than before", function()
    local system = (Host.script(STEPS, FLOW):gsub("return tm.system {",
      "%0 orchestrator = { performance_config = { max_workflow_duration = 60 } },"))
    for _, said in ipairs { 60000, 63000 } do
      host = Host.new(system)
      host:load()
      local asked = host:start()
      local began = host.now
      host.now = host.now + 59000
      bring_back(asked, 59000, 7)
      host.record.runtime.restored.workflow = said > 60000 and began + said or nil
      assert.equal(math.min(began + said, host.now + 5000), host:send("fine").wake_at)
      host.now = began + said - 1
      assert.equal("waiting_input", host:wake().status)
      host.now = began + said
      assert.same({ "expired", "flow.timeout" }, { host:wake().status, host.ended.error.code })
    end
  end)

  it("knows of a fork what it has not done itself", function()
    load_flow(STEPS, FLOW)
    bring_back(host:start(), 0, 7)
    host.record.runtime.restored.inherited = 7
    assert.equal(7, host:send("fine").runtime.inherited)
    assert.equal(7, host:send("fine").runtime.inherited)
    bring_back(host:send "fine", 0, 9)
    assert.is_nil(host:send("fine").runtime.inherited)
  end)

  it("was paused when it was forked, and shows its prompt for the first time when it goes on",
    function()
      load_flow(STEPS, FLOW)
      host:start()
      host.now = host.now + 2000 -- of five
      bring_back(host:signal "pause", 100000, 7)
      host.record.runtime.restored.forked = host.now + 100000
      host.now = host.now + 400000
      local turn = host:signal "unpause"
      assert.same({ "waiting_input", host.now + 3000, 1 },
        { turn.status, turn.wake_at, turn.runtime.wait.shown })
    end)

  it("counts no execution twice, and expires when the time is over again", function()
    load_flow(STEPS, FLOW)
    bring_back(host:start(), 100000, 0)
    host.now = host.now + 104999
    assert.equal("waiting_input", host:wake().status)
    host.now = host.now + 1
    assert.equal("expired", host:wake().status)
  end)

  it("moves what an interrupted prompt waits for, too", function()
    load_flow(STEPS, FLOW)
    host:start()
    local aside = host:send "hours"
    local before = aside.runtime.frames[1].wait.deadlines.rung
    assert.equal(host.now + 5000, before)
    bring_back(aside, 100000, 0)
    host.now = host.now + 100000
    assert.equal(before + 100000, host:wake().runtime.frames[1].wait.deadlines.rung)
  end)

  it("is the first row of its prompt, however often that was shown", function()
    load_flow(STEPS, FLOW)
    assert.equal(1, host:start().runtime.wait.shown)
    assert.equal(2, host:wake().runtime.wait.shown)
    assert.equal(3, host:signal("pause").runtime.wait.shown)
    assert.equal(4, host:signal("unpause").runtime.wait.shown)
    assert.equal(1, host:send("fine").runtime.wait.shown)
    assert.equal(1, host:send("hours").runtime.wait.shown)
    assert.equal(1, host:send("so").runtime.wait.shown, "asked anew behind an answer")
  end)
end)

describe("undo functions", function()
  local BEFORE = [[
local function call(path, more)
  return function(ctx, output)
    local sent = more and more(ctx, output) or nil
    return ctx:http { url = "http://h" .. path, json = sent }
  end
end
local function show(ctx, output)
  return { order = ctx.state.order, got = output, seq = ctx.step.seq, input = ctx.input }
end]]
  local STEPS = [[
    ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?", save_as = "order",
      input_schema = { type = "text" }, next_steps = { "pay" } },
    ConversationStep { step_id = "pay", step_type = "action", max_retries = 1,
      run = function(ctx) local a = ctx:http { url = "http://h/pay" }; return { id = a.status } end,
      undo = call("/unpay", show), next_steps = { "ship" } },
    ConversationStep { step_id = "ship", step_type = "action", irreversible = false,
      run = function(ctx) ctx:http { url = "http://h/ship" } return 1 end,
      next_steps = { "mark" } },
    ConversationStep { step_id = "mark", step_type = "action", run = function() return "m" end,
      undo = UNDO_MARK, next_steps = { "ask" } },]]

  local function ordered(undo_mark)
    load_flow((STEPS:gsub("UNDO_MARK", undo_mark or 'call("/unmark", show)')),
      'start_step = "ask", variables = { order = "none" },', BEFORE)
    host:start()
    host:send "book"
    host.requests = {}
    return host
  end

  local function items()
    local list = {}
    for _, step in ipairs(host:all "steps") do
      if step.undo then
        table.insert(list, 1, { seq = step.seq, step_id = step.step_id, undo = step.undo,
          output = step.output })
      end
    end
    return { steps = list }
  end

  local function asked()
    local list = {}
    for i, request in ipairs(host.requests) do list[i] = request.url:match("h(/.*)$") end
    return table.concat(list, " ")
  end

  it("are recorded with the executions that they undo", function()
    ordered()
    local steps = host:all "steps"
    assert.same({ "ask", "pay", "ship", "mark" },
      { steps[1].step_id, steps[2].step_id, steps[3].step_id, steps[4].step_id })
    assert.same({ "main", "main" }, { steps[2].undo, steps[4].undo })
    assert.is_nil(steps[1].undo)
    assert.is_nil(steps[3].undo)
    assert.is_false(steps[3].irreversible)
    assert.is_nil(steps[2].irreversible)
  end)

  it("run the newest first, with the output and the state as it is now", function()
    ordered()
    local turn = host:turn("undo", items())
    assert.same({ "undone", { 4, 2 } }, { turn.kind, turn.runtime.undone })
    assert.is_nil(turn.refused)
    assert.equal("/unmark /unpay", asked())
    assert.equal('{"got":"m","order":"book","seq":5}', host.requests[1].body)
    assert.equal('{"got":{"id":200},"order":"book","seq":6}', host.requests[2].body)
    local steps = host:all "steps"
    assert.same({ 4, 2, "completed", "pay", 6 }, { steps[5].undoes, steps[6].undoes,
      steps[6].status, steps[6].step_id, steps[6].seq })
    assert.is_nil(steps[6].undo)
  end)

  it("go on in the middle after a crash, and repeat no recorded call", function()
    for stop = 1, 6 do -- begin, http, call of the one; begin, http, call of the other
      ordered()
      local seen = 0
      host:turn("undo", items(), function()
        seen = seen + 1
        return seen == stop
      end)
      if not host.ended then
        host:crash()
        if host.unfinished then host:resume() else host:turn("undo", items()) end
      end
      assert.same({ 4, 2 }, host.ended.runtime.undone)
      local unmarked, unpaid = 0, 0
      for _, request in ipairs(host.requests) do
        if request.url:find "unmark" then unmarked = unmarked + 1 end
        if request.url:find "unpay" then unpaid = unpaid + 1 end
      end
      assert.same({ (stop == 2 or stop == 3) and 2 or 1, stop > 4 and 2 or 1 },
        { unmarked, unpaid })
    end
  end)

  it("are tried again with the step's settings, and then leave everything as it was", function()
    ordered()
    host.outside = function(request)
      if request.url:find "unpay" then
        return nil, { code = "http.connect", message = "no", retryable = true }
      end
      return { status = 200, headers = {}, body = "" }
    end
    local turn = host:turn("undo", items())
    assert.same({ "suspend", { 4 }, 2 }, { turn.kind, turn.runtime.undone, turn.runtime.attempt })
    assert.is_true(turn.wake_at > host.now)
    turn = host:resume()
    assert.same({ "undone", { 4 }, "rollback.undo_failed", "pay", "conflict" },
      { turn.kind, turn.runtime.undone, turn.refused.code, turn.refused.step_id,
        turn.refused.status })
    assert.truthy(turn.refused.message:find("'pay' failed", 1, true))
    assert.truthy(turn.refused.message:find("http.connect: no", 1, true))
    assert.equal("/unmark /unpay /unpay", asked())
    local steps = host:all "steps"
    assert.same({ "failed", 2, 2 }, { steps[#steps].status, steps[#steps].attempt,
      steps[#steps].undoes })
  end)

  it("cannot write the state, nor do so later", function()
    ordered "function(ctx) ctx.state.order = 'other' end"
    local turn = host:turn("undo", items())
    assert.equal("rollback.undo_failed", turn.refused.code)
    assert.truthy(turn.refused.message:find("ctx.state.order cannot be written here", 1, true))
    assert.equal("book", turn.state.order)
  end)

  it("fail when they go over a limit, which no further attempt can help", function()
    ordered()
    host:turn("undo", items(), function(op) return op.kind == "http" and #host.requests == 2 end)
    task.dispatch(host.turn_id, "failed", { code = "script.cpu", message = "too much" })
    local turn = host.ended
    assert.same({ "undone", { 4 }, "rollback.undo_failed", "pay" },
      { turn.kind, turn.runtime.undone, turn.refused.code, turn.refused.step_id })
    assert.truthy(turn.refused.message:find("script.cpu", 1, true))
    host.pending = {}
  end)

  it("that a version does not have leave the conversation where it was", function()
    ordered()
    local list = items()
    list.steps[1].step_id = "gone"
    local turn = host:turn("undo", list)
    assert.same({ "undone", {}, "rollback.undo_failed", "gone" },
      { turn.kind, turn.runtime.undone, turn.refused.code, turn.refused.step_id })
  end)

  it("of the steps of branches are found", function()
    load_flow([[ConversationStep { step_id = "both", step_type = "parallel", next_steps = { "ask" },
        branches = { left = { ConversationStep { step_id = "l", step_type = "action",
          run = function() return "L" end, next_steps = { "end" },
          undo = function(ctx, output) ctx:http { url = "http://h/" .. output } end } },
          right = { ConversationStep { step_id = "r", step_type = "action",
          run = function() return "R" end, next_steps = { "end" },
          undo = function(ctx, output) ctx:http { url = "http://h/" .. output } end } } } },
      ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?",
        input_schema = { type = "text" }, next_steps = { "end" } },]], 'start_step = "both",')
    host:start()
    local turn = host:turn("undo", items())
    assert.is_nil(turn.refused)
    assert.equal("/R /L", asked())
  end)

  it("do not go with irreversible = true", function()
    local ok, err = pcall(load_flow, [[
      ConversationStep { step_id = "a", step_type = "action", run = function() end,
        undo = function() end, irreversible = true, next_steps = { "end" } } ]],
      'start_step = "a",')
    assert.is_false(ok)
    assert.truthy(tostring(err):find("'undo' and irreversible = true exclude", 1, true))
  end)

  it("see the state of their own flow, wherever that is on the stack", function()
    load_flow([[ConversationStep { step_id = "in", step_type = "action", run = function() end,
        undo = function(ctx) ctx:http { url = "http://h/in", json = { ctx.state.own } } end,
        next_steps = { "hold" } },
      ConversationStep { step_id = "hold", step_type = "user_input", prompt = "?",
        input_schema = { type = "text" }, next_steps = { "end" } }, ]], [[
      start_step = "first", variables = { own = "outer" }, steps = {
        ConversationStep { step_id = "first", step_type = "action", run = function() end,
          undo = function(ctx) ctx:http { url = "http://h/out", json = { ctx.state.own } } end,
          next_steps = { "nested" } },
        ConversationStep { step_id = "nested", step_type = "subflow", flow = "inner",
          next_steps = { "wait" } },
        ConversationStep { step_id = "wait", step_type = "user_input", prompt = "!",
          input_schema = { type = "text" }, next_steps = { "end" } } } },
      tm.ConversationFlow { flow_id = "inner", start_step = "in", variables = { own = "inner" },]])
    host:start()
    host:turn("undo", items())
    assert.same({ '["inner"]', '["outer"]' }, { host.requests[1].body, host.requests[2].body })
    host.requests, host.record.status = {}, "waiting_input"
    host.record.step = "hold"
    host:send "so"
    host:turn("undo", items())
    assert.same({ "{}", '["outer"]' }, { host.requests[1].body, host.requests[2].body })
  end)
end)
