-- compensate_on_failure: what steps did outside is undone before their conversation has failed.
local Host = require "tests.lua.fake_host"
local json = require "host.json"
local task = require "tidemill.task"

local host

after_each(function() assert.equal(0, task.count(), "a task was left behind") end)

local BEFORE = [[
local function act(id, next_step, more)
  local step = more or {}
  step.step_id, step.step_type, step.next_steps = id, "action", { next_step }
  step.run = step.run or function(ctx)
    ctx:http { url = "http://h/" .. id }
    return "o-" .. id
  end
  if step.undo == nil then
    step.undo = function(ctx, output)
      local sent = { output, ctx.state.item or "-" }
      local answer = ctx:http { url = "http://h/un" .. id, json = sent }
      if answer.status == 500 then
        return nil, { code = "test.refused", message = "no", retryable = answer.body == "again" }
      end
    end
  end
  step.undo = step.undo or nil
  return ConversationStep(step)
end
local function broken()
  error({ code = "test.broken", message = "broken", retryable = false }, 0)
end
]]

local ASK = [[ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?",
  save_as = "item", input_schema = { type = "text" }, next_steps = { "pay" } },]]
local STEPS = ASK .. [[ act("pay", "ship"), act("ship", "last"),
  act("last", "end", { run = broken, undo = false }),]]
local FLOW = 'start_step = "ask", compensate_on_failure = true,'

local function load_flow(steps, flow, system)
  host = Host.new(Host.script(steps or STEPS, flow or FLOW, BEFORE, system))
  host:load()
  host:start()
  return host
end

local function asked(from)
  local list = {}
  for i = (from or 0) + 1, #host.requests do
    list[#list + 1] = host.requests[i].url:match "h/(.*)$"
  end
  return table.concat(list, " ")
end

--- What the host finds: completed executions with an `undo` that are not undone yet.
local function given(irreversible)
  local undone, list = {}, json.array {}
  for _, step in ipairs(host:all "steps") do
    if step.undoes and step.status == "completed" then undone[step.undoes] = true end
  end
  for _, step in ipairs(host:all "steps") do
    if step.undo and step.status == "completed" and not undone[step.seq] then
      table.insert(list, 1, { seq = step.seq, step_id = step.step_id, undo = step.undo,
        output = step.output })
    end
  end
  return { irreversible = irreversible or "", limited = false, steps = list }
end

local function go_on(stop, irreversible, most)
  local list = given(irreversible)
  list.more = #list.steps > (most or 1000)
  for i = #list.steps, (most or 1000) + 1, -1 do list.steps[i] = nil end
  host.unfinished = { kind = host.unfinished.kind, input = list }
  return host:resume(stop)
end

local function answer(by)
  host.outside = function(request)
    local status = by[request.url:match "h/(.*)$"]
    if type(status) == "string" then return { status = 500, headers = {}, body = status } end
    return { status = status or 200, headers = {}, body = "" }
  end
end

describe("a conversation that fails", function()
  it("undoes the newest step first, and then has failed", function()
    load_flow()
    local turn = host:send "book"
    assert.same({ "suspend", "active", host.now }, { turn.kind, turn.status, turn.wake_at })
    assert.equal("test.broken", turn.runtime.failing.code)
    turn = go_on()
    assert.same({ "turn", "failed", "" }, { turn.kind, turn.status, turn.step })
    assert.equal("pay ship unship unpay", asked())
    assert.equal('["o-ship","book"]', host.requests[3].body)
    assert.same({ "test.broken", "last" }, { turn.error.code, turn.error.step_id })
    assert.same({ undone = 2, failed = {}, irreversible = {} }, turn.error.compensation)
    assert.equal("broken (2 steps were undone)", turn.error.message)
    assert.equal("ask pay ship last! ship pay", host:path())
    assert.equal(3, host:all("steps")[5].undoes)
    assert.is_nil(turn.runtime.failing)
    assert.equal("book", turn.state.item)
  end)

  it("undoes them in several turns where they are too many for one", function()
    load_flow()
    host:send "book"
    local turn = go_on(nil, "ask", 1)
    assert.same({ "suspend", "active", host.now }, { turn.kind, turn.status, turn.wake_at })
    assert.equal("pay ship unship", asked())
    turn = go_on(nil, "none", 1)
    assert.same({ "turn", "failed" }, { turn.kind, turn.status })
    assert.equal("pay ship unship unpay", asked())
    assert.same({ undone = 2, failed = {}, irreversible = { "ask" } }, turn.error.compensation)
  end)

  it("does not without the setting", function()
    load_flow(STEPS, 'start_step = "ask",')
    local turn = host:send "book"
    assert.same({ "turn", "failed" }, { turn.kind, turn.status })
    assert.is_nil(turn.error.compensation)
    assert.equal("pay ship", asked())
  end)

  it("does not when something else follows on the failure", function()
    load_flow((STEPS:gsub("run = broken,", 'run = broken, on_error = "ask",')))
    assert.same({ "turn", "waiting_input" }, { host:send("book").kind, host.record.status })
    load_flow(STEPS, FLOW .. "settings = { resume_on_failure = true },")
    assert.equal("paused", host:send("book").status)
    assert.equal("pay ship", asked())
  end)

  it("names what is irreversible, found once", function()
    load_flow()
    host:send "book"
    go_on(function(op) return op.kind == "call" end, "mail, mail, step 7")
    host:crash()
    local turn = go_on(nil, "mail, mail, step 7, step 9")
    assert.same({ "mail", "step 7" }, turn.error.compensation.irreversible)
    assert.truthy(turn.error.message:find("could not be taken back: mail, step 7)", 1, true))
  end)

  it("leaves an undo that fails for good, and goes on with the others", function()
    load_flow((STEPS:gsub('act%("ship", "last"%)', 'act("ship", "last", { max_retries = 1 })')))
    answer { unship = "again" }
    host:send "book"
    local turn = go_on()
    assert.same({ "suspend", 2 }, { turn.kind, turn.runtime.attempt })
    assert.is_true(turn.wake_at > host.now)
    turn = go_on()
    assert.equal("pay ship unship unship unpay", asked())
    assert.same({ "failed", { undone = 1, failed = { "ship" }, irreversible = {} } },
      { turn.status, turn.error.compensation })
    assert.equal("broken (1 step was undone; their undo failed: ship)", turn.error.message)
    assert.is_nil(turn.runtime.left)
  end)

  it("says of a step whose undo this version does not have that it is why", function()
    load_flow()
    host:send "book"
    host.files["init.lua"] = Host.script((STEPS:gsub('act%("ship", "last"%)',
      'act("ship", "last", { undo = false })')), FLOW, BEFORE)
    host:load()
    local turn = go_on()
    assert.same({ undone = 1, failed = { "ship" }, irreversible = {} }, turn.error.compensation)
    local steps = host:all "steps"
    local record = steps[#steps - 1]
    assert.same({ "ship", "failed", 3, "rollback.undo_missing", steps[#steps - 2].seq + 1 },
      { record.step_id, record.status, record.undoes, record.error.code, record.seq })
    assert.matches("no 'undo'", record.error.message)
    assert.equal("rollback.undo_missing", host.logs[#host.logs].fields.code)
  end)

  it("does not take up again what was left, after a crash", function()
    load_flow()
    answer { unship = "no" }
    host:send "book"
    go_on(function(op) return op.url == "http://h/unpay" end)
    host:crash()
    assert.same({ { seq = 3, step_id = "ship" } }, host.record.runtime.left)
    local turn = go_on()
    assert.same({ "failed", 1, { "ship" } },
      { turn.status, turn.error.compensation.undone, turn.error.compensation.failed })
    assert.equal("pay ship unship unpay unpay", asked()) -- the last was in flight
  end)

  it("asks for nothing twice that was recorded, whenever the host dies", function()
    local at = 0
    local died
    repeat
      at = at + 1
      load_flow()
      host:send "book"
      local seen = 0
      died = not go_on(function() seen = seen + 1; return seen == at end)
      if died then
        host:crash()
        host.now = host.now + 777
        go_on()
      end
      assert.equal("failed", host.record.status)
      assert.equal(2, host.ended.error.compensation.undone)
      local keys, paths = {}, {}
      for _, request in ipairs(host.requests) do
        local key = request.headers["Idempotency-Key"]
        if not keys[key] then paths[#paths + 1] = request.url:match "h/(.*)$" end
        keys[key] = true
      end
      assert.equal("pay ship unship unpay", table.concat(paths, " "))
      assert.is_true(#host.requests <= 5)
    until not died
    assert.equal(7, at) -- begin, request and call of both
  end)

  it("goes on when a limit stops an undo", function()
    load_flow()
    host:send "book"
    go_on(function(op) return op.url == "http://h/unship" end)
    task.dispatch(host.turn_id, "failed", { code = "script.cpu", message = "too much" })
    host:pump()
    assert.same({ "failed", { undone = 1, failed = { "ship" }, irreversible = {} } },
      { host.ended.status, host.ended.error.compensation })
  end)

  local function nested(outer, inner)
    load_flow([[ act("in1", "in2"), act("in2", "end", { run = broken, undo = false }),]],
      ('start_step = "ask", ' .. outer .. " steps = { " .. ASK .. [[ act("pay", "inner"),
        ConversationStep { step_id = "inner", step_type = "subflow", flow = "sub",
          next_steps = { "end" } } } },
      tm.ConversationFlow { flow_id = "sub", start_step = "in1",]]) .. inner)
    return host:send "book"
  end

  it("in a sub-flow undoes what all flows did", function()
    nested("compensate_on_failure = true,", "")
    local turn = go_on()
    assert.equal("pay in1 unin1 unpay", asked())
    assert.same({ "failed", 2, "inner" },
      { turn.status, turn.error.compensation.undone, turn.error.step_id })
    assert.equal('["o-pay","book"]', host.requests[4].body)
  end)

  it("goes by the setting of its first flow", function()
    assert.equal("failed", nested("", "compensate_on_failure = true,").status)
    assert.equal("pay in1", asked())
  end)

  it("is not expired meanwhile, and nothing is due any more", function()
    load_flow(STEPS, FLOW, [[ }, orchestrator = { performance_config = {
      max_workflow_duration = 5 } ]])
    local turn = host:send "book"
    assert.is_nil(turn.runtime.deadlines)
    host.now = host.now + 100000
    assert.same({ "failed", "test.broken" }, { go_on().status, host.ended.error.code })
  end)
end)

describe("a rollback that is forced", function()
  it("leaves an undo that keeps failing", function()
    load_flow(ASK .. [[ act("pay", "ship"), act("ship", "ask"),]])
    answer { unship = "no" }
    host:send "book"
    local items = given()
    local turn = host:turn("undo", { steps = items.steps })
    assert.equal("rollback.undo_failed", turn.refused.code)
    assert.truthy(turn.refused.message:find("roll back with force", 1, true))
    turn = host:turn("undo", { force = true, steps = items.steps })
    assert.same({ "undone", { 2 }, { { seq = 3, step_id = "ship" } } },
      { turn.kind, turn.runtime.undone, turn.runtime.left })
    assert.is_nil(turn.refused)
    assert.equal("unship unship unpay", asked(2))
    local steps = host:all "steps"
    assert.same({ "failed", 3, "completed", 2 }, { steps[#steps - 1].status,
      steps[#steps - 1].undoes, steps[#steps].status, steps[#steps].undoes })
  end)

  it("also goes over a function that this version does not have", function()
    load_flow(ASK .. [[ act("pay", "ask"),]])
    host:send "book"
    local items = given()
    items.steps[1].step_id = "gone"
    local turn = host:turn("undo", { force = true, steps = items.steps })
    assert.is_nil(turn.refused)
    assert.same({ {}, "gone" }, { turn.runtime.undone, turn.runtime.left[1].step_id })
  end)
end)

describe("a fork", function()
  local SHORT = [[ }, orchestrator = { performance_config = { max_workflow_duration = 100 } ]]

  it("may last as long as any conversation, from when it was made", function()
    load_flow(ASK .. [[ act("pay", "ask"),]], 'start_step = "ask",', SHORT)
    local forked = host.now + 90000
    host.now = forked + 50000
    host.record.runtime.restored = { forked = forked, moved = 90000, step_seq = 0 }
    local turn = host:send "book"
    assert.equal("waiting_input", turn.status)
    assert.equal(forked + 100000, turn.runtime.deadlines.workflow)
    host.now = forked + 100000
    assert.equal("expired", host:wake().status)
  end)
end)
