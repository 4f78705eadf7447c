-- `resource_monitoring`: what an execution uses is in its record, the sum in the runtime part; what
-- runs meanwhile is not its own.
local Host = require "tests.lua.fake_host"
local log = require "host.log"
local task = require "tidemill.task"

local host, cpu, bytes, peak
local write = log.write

--- ctx:log("burn …") uses so much CPU and memory, of which so much stays.
before_each(function()
  cpu, bytes, peak = 0, 0, 0
  log.write = function(level, message, fields)
    local spent, most, left = message:match "^burn (%d+) (%d+) (%d+)$"
    if not spent then return write(level, message, fields) end
    cpu, peak = cpu + spent, math.max(peak, bytes + most)
    bytes = bytes + left
  end
end)

after_each(function()
  log.write = write
  assert.equal(0, task.count(), "a task was left behind")
end)

local function load_flow(steps, flow, before, on, config)
  local text = Host.script(steps, flow, before):gsub("return tm.system {", ("%%0 orchestrator = { "
    .. "performance_config = { %s } },"):format(on or "resource_monitoring = true"))
  host = Host.new(text, config)
  host.used = function()
    local most = peak
    peak = bytes
    return math.tointeger(cpu), math.tointeger(bytes), math.tointeger(most)
  end
  host:load()
  return host
end

local function act(id, run, next_step)
  return ([[ConversationStep { step_id = "%s", step_type = "action", run = function(ctx) %s end,
    next_steps = { "%s" } },]]):format(id, run, next_step)
end

local function burn(spent, most, left)
  return ("ctx:log('burn %d %d %d')"):format(spent, most, left)
end

local function used()
  local list = {}
  for i, step in ipairs(host:all "steps") do
    list[i] = step.usage and ("%s %d %d"):format(step.step_id, step.usage.cpu_us,
      step.usage.memory_bytes) or step.step_id
  end
  return table.concat(list, ", ")
end

local ASK = [[ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?",
  input_schema = { type = "text" }, next_steps = { "a" } },]]
local TWO = ASK .. act("a", burn(5, 100, 40), "b") .. act("b", burn(7, 30, 10), "ask")

describe("what steps use", function()
  it("is in their records, and summed up in the conversation", function()
    load_flow(TWO, 'start_step = "a",')
    host:start()
    assert.equal("a 5 100, b 7 30", used())
    assert.same({ cpu_us = 12, memory_bytes = 100 }, host.record.runtime.usage)
    local turn = host:send "x"
    assert.same({ cpu_us = 24, memory_bytes = 100 }, turn.runtime.usage)
  end)

  it("is measured where it is asked for, and nowhere else", function()
    local asked = 0
    for on, config in pairs { [""] = {}, ["resource_monitoring = false"] = {
      resource_monitoring = true } } do
      load_flow(TWO, 'start_step = "a",', nil, on, config)
      host.used = function()
        asked = asked + 1
        return 0, 0, 0
      end
      host:start()
      assert.equal("a, b", used())
      assert.is_nil(host.record.runtime.usage)
    end
    assert.equal(0, asked)
    load_flow(TWO, 'start_step = "a",', nil, "", { resource_monitoring = true })
    host:start()
    assert.equal("a 5 100, b 7 30", used())
  end)

  it("does not count what others use while it waits", function()
    load_flow(act("a", burn(5, 100, 40) .. " ctx:http { url = 'http://x/' } " .. burn(3, 80, 0),
      "end"), 'start_step = "a",')
    host.outside = function()
      cpu, bytes, peak = cpu + 1000, bytes + 5000, bytes + 9000
      return { status = 200, headers = {}, body = "" }
    end
    host:start()
    assert.equal("a 8 120", used())
  end)

  it("is that of each attempt", function()
    load_flow([[ConversationStep { step_id = "a", step_type = "action", max_retries = 1,
      next_steps = { "end" }, run = function(ctx)
        ctx:log(ctx.step.attempt == 1 and "burn 5 100 0" or "burn 7 30 0")
        if ctx.step.attempt == 1 then error "once" end
      end },]], 'start_step = "a",')
    host:start()
    host.now = host.now + 60000
    host:resume()
    assert.equal("a 5 100, a 7 30", used())
    assert.same({ cpu_us = 12, memory_bytes = 100 }, host.record.runtime.usage)
  end)

  it("is each branch's own", function()
    local call = " ctx:http { url = 'http://x/' } "
    load_flow([[ConversationStep { step_id = "both", step_type = "parallel",
      next_steps = { "end" }, merge = function(ctx) ctx:log("burn 2 10 0") return 1 end,
      branches = { x = { ]] .. act("x1", burn(5, 100, 100) .. call .. burn(5, 10, 0), "end") .. [[},
        y = { ]] .. act("y1", burn(70, 400, 0) .. call .. burn(7, 1, 0), "end") .. "} } },",
      'start_step = "both",', nil, "resource_monitoring = true, parallel_execution = true")
    host:start()
    assert.equal("both 2 10, x1 10 110, y1 77 400", used())
    assert.same({ cpu_us = 89, memory_bytes = 400 }, host.record.runtime.usage)
  end)

  it("goes on from what it was before a rollback; a fork has used nothing yet", function()
    load_flow(TWO, 'start_step = "ask",')
    host:start()
    local runtime = host.record.runtime
    runtime.restored = { moved = 0, step_seq = 9, usage = { cpu_us = 100, memory_bytes = 500 } }
    assert.same({ cpu_us = 112, memory_bytes = 500 }, host:send("x").runtime.usage)
    host.record.runtime.restored = { moved = 0, step_seq = 9, forked = host.now }
    assert.same({ cpu_us = 12, memory_bytes = 100 }, host:send("x").runtime.usage)
  end)
end)
