-- Time for scripts: exact, in UTC, and the same again when a step runs again.
local Host = require "tests.lua.fake_host"
local date = require "tidemill.date"

describe("os.date", function()
  before_each(function() Host.new {} end)

  it("is what the C library says, for every conversion", function()
    local letters = "a A b B c C d D e F g G h H I j m M n p r R S t T u U V w W x X y Y %"
    for _, at in ipairs { 0, 951782400, 1078012800, 1262304000, 1293840000, 1325289600, 4102444799,
      -1, -2208988800, 1482796800, 1704067199, 253402300799 } do
      for letter in letters:gmatch("%S+") do
        assert.equal(os.date("!%" .. letter, at), date.date("%" .. letter, at), letter .. " " .. at)
      end
      assert.same(os.date("!*t", at), date.date("*t", at))
    end
    assert.equal("1970-01-01 UTC+0000", date.date("!%F %Z%z", 0))
  end)

  it("takes nothing that could hurt", function()
    for _, bad in ipairs { "%Q", "%", "%E", "%Ec", "%\0", "%99999999d" } do
      assert.error_matches(function() date.date(bad, 0) end, "is no conversion")
    end
    for _, bad in ipairs { 1 << 62, -(1 << 62), 0.5, "x", math.huge, 0 / 0 } do
      assert.error_matches(function() date.date("%c", bad) end, "in the years 1 to 9999")
    end
    assert.error_matches(function() date.date(("%c"):rep(1000)) end, "at most 1000 bytes")
    assert.error_matches(function() date.date({}) end, "must be a text")
  end)
end)

describe("os.time", function()
  before_each(function() Host.new {} end)

  it("is the inverse of os.date", function()
    for _, at in ipairs { 0, 951868799, -62135596800, 253402300799 } do
      assert.equal(at, date.time(date.date("*t", at)))
    end
    assert.equal(date.time { year = 2027, month = 1, day = 31, hour = 0 },
      date.time { year = 2026, month = 13, day = 31, hour = 0 })
    assert.equal(43200, date.time { year = 1970, month = 1, day = 1 })
  end)

  it("refuses what is no date", function()
    assert.error_matches(function() date.time { year = 2026, month = 1 } end, "the field 'day'")
    assert.error_matches(function() date.time { year = 1 << 60, month = 1, day = 1 } end, "'year'")
    assert.error_matches(function() date.time { year = 99999, month = 1, day = 1 } end, "1 to 9999")
    assert.error_matches(function() date.time(5) end, "a table expected")
  end)
end)

describe("the time of a step", function()
  it("stands still, and is the same when the step runs again", function()
    local host = Host.new(Host.script([[
      ConversationStep { step_id = "act", step_type = "action", next_steps = { "end" },
        save_as = "v", run = function(ctx)
          local before = { os.time(), os.clock(), os.date("%T") }
          ctx:http { url = "http://x/" }
          assert(os.time() == before[1] and os.clock() == before[2])
          assert(os.time() == ctx.now // 1000)
          return coroutine.wrap(function() return { os.time(), os.clock(), os.date("%T") } end)()
        end },]], 'start_step = "act",', "assert(os.time() == 1000)"))
    host:load()
    host:start(nil, function(op) return op.kind == "call" end)
    host:crash()
    host.now = host.now + 3600000
    assert.same({ 1000, 1000.0, "00:16:40" }, host:resume().state.v)
  end)
end)
