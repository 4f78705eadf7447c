-- ctx:emit: events travel with the row that records their step, and only with it.
local Host = require "tests.lua.fake_host"
local json = require "host.json"

local host

local function load_step(code, fields, config, more)
  host = Host.new(Host.script(([[
    ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?",
      input_schema = { type = "text" }, next_steps = { "act" } },
    ConversationStep { step_id = "act", step_type = "action", next_steps = { "%s" },
      %s run = function(ctx) %s end },%s]]):format(more and "more" or "end", fields or "", code,
    more or ""), 'start_step = "ask",'), config or { webhooks = true })
  host:load()
  host:start()
end

--- "kind: names of events" of each row that has some.
local function told()
  local list = {}
  for _, row in ipairs(host.rows) do
    local names = {}
    for _, event in ipairs(row.events or {}) do names[#names + 1] = event.event end
    if #names > 0 then list[#list + 1] = row.kind .. ": " .. table.concat(names, " ") end
  end
  return list
end

local function refusal(code, config)
  load_step(code, nil, config)
  local turn = host:send "hi"
  assert.same({}, told())
  return turn.error
end

describe("ctx:emit", function()
  it("goes with the row that records its step", function()
    load_step [[ctx:emit("order.placed", { n = 1, list = { 1, 2 } }); ctx:emit("order.billed")]]
    host:send "hi"
    assert.same({ "turn: order.placed order.billed" }, told())
    local events = host.rows[#host.rows].events
    assert.same({ n = 1, list = { 1, 2 } }, events[1].data)
    assert.equal(json.null, events[2].data)
    assert.same({ "shop", "main", "act", host.now },
      { events[1].system, events[1].flow_id, events[1].step_id, events[1].created })
  end)

  it("says what the data was when it was emitted", function()
    load_step [[local data = { n = 1 }; ctx:emit("a", data); data.n = 2; ctx:emit("b", data)]]
    host:send "hi"
    local events = host.rows[#host.rows].events
    assert.same({ 1, 2 }, { events[1].data.n, events[2].data.n })
  end)

  it("goes with a begin row where a call follows, and not again", function()
    load_step([[ctx:emit("a")]], nil, nil, [[
      ConversationStep { step_id = "more", step_type = "action", next_steps = { "end" },
        run = function(ctx) ctx:http { url = "http://x/" }; ctx:emit("b") end },]])
    host.outside = function() return { status = 200, headers = {}, body = "" } end
    host:send "hi"
    assert.same({ "begin: a", "turn: b" }, told())
  end)

  it("is forgotten with an attempt that fails", function()
    load_step([[
      ctx:emit("a")
      if ctx:http { url = "http://x/" }.status == 500 then error "no" end]], "max_retries = 2,")
    local asked = 0
    host.outside = function()
      asked = asked + 1
      return { status = asked == 1 and 500 or 200, headers = {}, body = "" }
    end
    host:send "hi"
    assert.same({}, told())
    host.now = host.now + 100000
    host:resume()
    assert.same({ "turn: a" }, told())
  end)

  it("is refused where it would be lost, and without somebody to be told", function()
    assert.matches("ctx:emit cannot be used inside ctx:once",
      refusal([[ctx:once("n", function() ctx:emit("a") end)]]).message, 1, true)
    assert.equal("emit.no_webhook", refusal([[ctx:emit("a")]], {}).code)
  end)

  it("is bounded", function()
    assert.equal("emit.too_large", refusal([[ctx:emit("a", ("x"):rep(70000))]]).code)
    assert.equal("emit.too_many", refusal([[for i = 1, 65 do ctx:emit("a") end]]).code)
    for _, name in ipairs { '""', '"A"', '"a b"', '"1a"', 'nil', '7', '("a"):rep(65)' } do
      assert.matches("the name must be 1 to 64 of a-z",
        refusal(("ctx:emit(%s)"):format(name)).message, 1, true)
    end
    assert.matches("the data of 'a' cannot be kept",
      refusal([[ctx:emit("a", { f = function() end })]]).message, 1, true)
  end)
end)
