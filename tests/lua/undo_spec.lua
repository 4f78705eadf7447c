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
    assert.equal(2, host:send("so").runtime.wait.shown)
  end)
end)
