-- Slips that a script writer makes early: each gets an error that says what to write instead.
local Host = require "tests.lua.fake_host"
local system = require "tidemill.system"

local host

local function fails_with(expected, body)
  host = Host.new(Host.script(([[ConversationStep { step_id = "act", step_type = "action",
    run = function(ctx) %s end, next_steps = { "end" } },]]):format(body), 'start_step = "act",'))
  host:load()
  local turn = host:start()
  assert.equal("failed", turn.status)
  assert.matches(expected, turn.error.message, 1, true)
  assert.matches("init.lua:%d+", turn.error.message)
end

describe("a ctx", function()
  it("takes nothing but state", function()
    fails_with("ctx.total cannot be set: only ctx.state crosses steps; set ctx.state.total",
      "ctx.total = 1")
  end)

  it("says that a method needs a colon", function()
    fails_with("ctx.log needs a colon: ctx:log(", "ctx.log('info', 'x')")
    fails_with("ctx.http needs a colon", "ctx.http('x')")
  end)

  it("says that its time is no function", function()
    local said = "(method 'now'); ctx.now is a number: write ctx.now, without a colon and ()"
    fails_with(said, "ctx.state.at = ctx:now()")
    fails_with(said, "return ctx:now()")
    fails_with("(field 'now'); ctx.now is a number: write ctx.now", "ctx.state.at = ctx.now()")
  end)

  it("knows its levels", function()
    fails_with("the level must be debug, info, warning or error", "ctx:log('loud', 'x')")
  end)
end)

describe("a file", function()
  it("may begin with a byte order mark", function()
    local step = [[ConversationStep { step_id = "a", step_type = "action",
      run = function() end, next_steps = { "end" } },]]
    Host.new("\239\187\191" .. Host.script(step, 'start_step = "a",'))
    local _, findings = system.load "shop"
    assert.same({}, findings.items)
  end)

  it("that returns a flow by a tail call is still named for it", function()
    Host.new {
      ["init.lua"] = [[local tm = require "tidemill"
        return tm.system { name = "shop", agents = {}, flows = { require "flow" } }]],
      ["flow.lua"] = [[local tm = require "tidemill"
        return tm.ConversationFlow { flow_id = "f", start_step = "nowhere", steps = {
          tm.ConversationStep { step_id = "a", step_type = "action", run = function() end,
            next_steps = { "end" } } } }]],
    }
    local _, findings = system.load "shop"
    assert.equal("scripts/shop/flow.lua", findings.items[1].file)
    assert.equal(3, findings.items[1].line)
  end)
end)
