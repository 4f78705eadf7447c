-- Coroutines of scripts: the library works, waits pass through, the turn's task is out of reach.
local Host = require "tests.lua.fake_host"
local task = require "tidemill.task"

--- Runs code in an action step and, while it waits, whatever comes.
local function act(code, before)
  local host = Host.new(Host.script(([[
    ConversationStep { step_id = "act", step_type = "action", next_steps = { "end" },
      save_as = "v", run = function(ctx) %s end },]]):format(code), 'start_step = "act",', before))
  host.outside = function(request)
    return { status = 200, headers = {}, body = request.url:match("%w+$") }
  end
  host:load()
  return host:start(), host
end

local function value_of(code, before)
  local turn = act(code, before)
  assert.is_nil(turn.error and turn.error.message)
  return turn.state.v
end

local function error_of(code, before)
  local turn = act(code, before)
  assert.equal("failed", turn.status)
  return turn.error.message
end

describe("a coroutine of a script", function()
  after_each(function() assert.equal(0, task.count()) end)

  it("works as Lua's", function()
    assert.equal("1,2,3", value_of [[
      local co = coroutine.create(function(a) local b = coroutine.yield(a + 1)
        return coroutine.yield(b + 1) end)
      local _, x = coroutine.resume(co, 0)
      local _, y = coroutine.resume(co, 1)
      assert(coroutine.status(co) == "suspended" and coroutine.resume(co, 3))
      assert(coroutine.status(co) == "dead" and not coroutine.resume(co))
      return table.concat({ x, y, 3 }, ",")]])
    assert.equal(6, value_of [[
      local sum = 0
      for i in coroutine.wrap(function() for i = 1, 3 do coroutine.yield(i) end end) do
        sum = sum + i
      end
      return sum]])
    assert.is_true(value_of [[
      local co, main = coroutine.running()
      assert(co == nil and main and not coroutine.isyieldable())
      return coroutine.wrap(function()
        local own, is_main = coroutine.running()
        return coroutine.status(own) == "running" and not is_main and coroutine.isyieldable()
      end)()]])
    assert.matches("init.lua:%d+: boom", error_of
      "coroutine.wrap(function() error('boom') end)()")
    assert.equal("closed", value_of [[
      local seen
      local co = coroutine.create(function()
        local _ <close> = setmetatable({}, { __close = function() seen = "closed" end })
        coroutine.yield()
      end)
      coroutine.resume(co)
      assert(seen == nil and coroutine.close(co) and coroutine.status(co) == "dead")
      return seen]])
  end)

  it("waits for the outside, and yields of its own in between", function()
    assert.equal("a1b2", value_of [[
      local co = coroutine.create(function()
        local a = ctx:http { url = "http://x/a" }.body
        local n = coroutine.yield(a)
        local b = ctx:http { url = "http://x/b" }.body
        return b .. n
      end)
      local _, a = coroutine.resume(co)
      local _, b = coroutine.resume(co, "1")
      return a .. b:sub(2) .. b:sub(1, 1) .. "2"]])
  end)

  it("waits through others, pcall, and iterators", function()
    assert.equal("deep!", value_of [[
      local function nest(n)
        if n == 0 then return ctx:http { url = "http://x/deep" }.body end
        local ok, body = pcall(coroutine.wrap(nest), n - 1)
        return ok and body
      end
      local result
      for body in coroutine.wrap(function() coroutine.yield(nest(5)) end) do result = body end
      return result .. "!"]])
  end)

  it("cannot be resumed, closed or seen as suspended while it waits", function()
    local host = Host.new(Host.script([[
      ConversationStep { step_id = "act", step_type = "action", next_steps = { "end" },
        run = function(ctx)
          kept.co = kept.co or coroutine.create(function()
            return ctx:http { url = "http://x/" }
          end)
          kept.status = coroutine.status(kept.co)
          local ok, why = coroutine.resume(kept.co)
          kept.ok, kept.why = ok, why
          kept.closed = pcall(coroutine.close, kept.co)
          return { tostring(ok), tostring(why), tostring(kept.closed), kept.status }
        end, save_as = "v" },]], 'start_step = "act",', "local kept = {}"))
    host:load()
    local function at_http(op) return op.kind == "http" end
    host:start(nil, at_http)
    local first_turn, first_pending = host.turn_id, host.pending
    host.pending, host.unfinished, host.record = {}, nil, { status = "active", step = "" }
    local second = host:start()
    assert.same({ "false", "cannot resume a coroutine that waits for the host", "false", "normal" },
      second.state.v)
    host.turn_id, host.pending = first_turn, first_pending
    host:pump()
    assert.equal("true", host.ended.state.v[1])
  end)

  it("cannot act in the name of another conversation", function()
    local host = Host.new(Host.script([[
      ConversationStep { step_id = "act", step_type = "action", next_steps = { "end" },
        run = function(ctx)
          if kept.ctx then return { pcall(kept.ctx.http, kept.ctx, { url = "http://x/b" }) } end
          kept.ctx = ctx
          return ctx:http { url = "http://x/a" }
        end, save_as = "v" },]], 'start_step = "act",', "local kept = {}"))
    host:load()
    host:start(nil, function(op) return op.kind == "http" end)
    host.pending, host.record = {}, { status = "active", step = "" }
    local second = host:start()
    assert.matches("this ctx belongs to another conversation", second.state.v[2], 1, true)
    assert.equal(1, #host.requests)
    task.dispatch(host.turn_id - 2, "cancel")
    for id = 1, host.turn_id do task.dispatch(id, "cancel") end
  end)

  it("cannot yield the turn itself, nor wait where Lua cannot be left", function()
    assert.matches("coroutine.yield: only a coroutine of your own", error_of "coroutine.yield()", 1,
      true)
    assert.matches("only a coroutine of your own", error_of "pcall(error) coroutine.yield(1)", 1,
      true)
    assert.matches("ctx:http cannot wait here", error_of [[
      table.sort({ 1, 2 }, coroutine.wrap(function() return ctx:http { url = "http://x/" } end))]],
      1, true)
    assert.matches("a coroutine expected, made by coroutine.create", error_of
      "coroutine.resume(coroutine.running())", 1, true)
    assert.matches("a function expected", error_of "coroutine.wrap(1)", 1, true)
  end)

  it("may be kept by a script from one step to the next", function()
    local turn = act([[
      gen = gen or coroutine.wrap(function() while true do coroutine.yield(1) end end)
      return gen()]], "local gen")
    assert.equal(1, turn.state.v)
  end)

  it("is forgotten with its turn", function()
    local _, host = act "return 1"
    host.files["init.lua"] = host.files["init.lua"]:gsub("return 1", [[
      return coroutine.wrap(function() return ctx:http { url = "http://x/" } end)()]])
    host:load()
    host.record = { status = "active", step = "" }
    host:start(nil, function(op) return op.kind == "http" end)
    host:crash()
    assert.equal(0, task.count())
  end)
end)
