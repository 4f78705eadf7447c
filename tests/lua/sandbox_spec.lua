-- What a script cannot reach or change, tried from inside a script.
local Host = require "tests.lua.fake_host"
local system = require "tidemill.system"

--- Runs code while a system loads; returns the first finding, or nil.
local function load_with(code, files)
  files = files or {}
  files["init.lua"] = Host.script([[ConversationStep { step_id = "last",
    step_type = "agent_response",
    agent = clerk, response = "Bye", next_steps = { "end" } },]], 'start_step = "last",', code)
  Host.new(files)
  local _, findings = system.load "shop"
  return findings.items[1] and findings.items[1].text
end

--- Runs code in an action step; returns the step's error, or nil.
local function act_with(code, before)
  local host = Host.new(Host.script(([[
    ConversationStep { step_id = "act", step_type = "action", next_steps = { "end" },
      run = function(ctx) %s end },]]):format(code), 'start_step = "act",', before))
  host:load()
  local ended = host:start()
  return ended.error and ended.error.message, host
end

describe("the globals of a script", function()
  it("are the allow-listed ones only", function()
    for name, use in pairs { io = "ctx:http", debug = "traceback", load = "require",
      loadstring = "require", loadfile = "require", dofile = "require", package = "require",
      print = "ctx:log", warn = "ctx:log", _G = "frozen", module = "require", setfenv = "_ENV",
      getfenv = "_ENV", unpack = "table.unpack" } do
      local text = load_with(("local x = 1\nx = %s.x"):format(name))
      assert.matches("^" .. name .. " is not available to scripts: ", text)
      assert.matches(use, text, 1, true)
    end
    for name, use in pairs { ["string.dump"] = "require", ["string.pack"] = "string.format",
      ["math.random"] = "ctx:random", ["math.randomseed"] = "ctx:random",
      ["os.execute"] = "ctx:http", ["os.getenv"] = "ctx.config", ["os.exit"] = "ctx:http" } do
      local text = load_with(name .. "(1)")
      assert.matches(name .. " is not available to scripts: ", text, 1, true)
      assert.matches(use, text, 1, true)
    end
    assert.matches("^scripts/shop/init.lua:%d+: io is not available", act_with("io.write(1)"))
    assert.matches("string.dump is not available", load_with ";('').dump(print)", 1, true)
    assert.is_nil(load_with [[assert(unknown == nil and string.unknown == nil)
      for _, name in ipairs { "assert", "error", "ipairs", "next", "pairs", "pcall", "select",
        "tonumber", "tostring", "type", "xpcall", "setmetatable", "getmetatable", "rawequal",
        "rawlen", "rawget", "rawset", "require", "collectgarbage" } do
        assert(type(_ENV[name]) == "function", name)
      end
      for _, name in ipairs { "string", "table", "math", "utf8", "os", "coroutine" } do
        assert(type(_ENV[name]) == "table", name)
      end]])
  end)

  it("may be given to names that the host only explains", function()
    assert.is_nil(load_with "print = function(x) return x end assert(print(3) == 3)")
  end)

  it("collect nothing, but say how much there is", function()
    assert.is_nil(load_with "assert(collectgarbage('count') > 10)")
    for _, option in ipairs { "", "'collect'", "'step'", "'stop'", "'generational'" } do
      assert.matches("only collectgarbage(\"count\") is available",
        load_with("collectgarbage(" .. option .. ")"), 1, true)
    end
  end)

  it("set nothing raw that belongs to the host", function()
    assert.is_nil(load_with [[local t = setmetatable({}, { __newindex = error })
      assert(rawset(t, "a", 1) == t and rawget(t, "a") == 1)
      assert(rawset(tm.array {}, 1, 2)[1] == 2)]])
    for _, target in ipairs { "string", "tm", "_ENV", "tm.AssistantAgent", "os" } do
      assert.matches("rawset: this table belongs to the host", load_with(("rawset(%s, 'x', 1)")
        :format(target)), 1, true)
    end
    assert.matches("belongs to the host", act_with("rawset(ctx, 'state', {})"), 1, true)
    assert.matches("is frozen", act_with("rawset(list, 1, 2)", "list = {}"), 1, true)
  end)

  it("cannot be replaced, nor the libraries", function()
    assert.matches("the global 'pairs' belongs to the host", load_with "pairs = 1")
    assert.matches("the global 'require' belongs to the host", load_with "require = 1")
    assert.matches("shared by all scripts", load_with "string.format = 1")
    assert.matches("shared by all scripts", load_with "math.floor = 1")
    assert.matches("tidemill.system cannot be set", load_with "tm.system = 1")
    assert.matches("cannot be set", load_with "tm.AssistantAgent.create_simple = 1")
    assert.matches("cannot be set", load_with "tm.ConversationPattern.SIMPLE_CHAT = 1")
  end)

  it("give nobody the tables behind them", function()
    assert.is_nil(load_with [[
      assert(getmetatable("") == nil and getmetatable(string) == false)
      assert(getmetatable(_ENV) == false and getmetatable(tm) == false)
      local iterate, face = pairs(string)
      assert(face == string)
      assert(not pcall(function() face.rep = 1 end))
      assert(not pcall(setmetatable, string, {}))
      assert(not pcall(setmetatable, _ENV, {}))]])
  end)

  it("may be defined while loading and are frozen afterwards", function()
    assert.is_nil(act_with("assert(limit == 5)", "limit = 5"))
    local message = act_with("counter = (counter or 0) + 1")
    assert.matches("scripts/shop/init.lua:%d+: the global 'counter' cannot be set after load",
      message)
    assert.matches("keep it in ctx.state", message, 1, true)
  end)
end)

describe("require", function()
  it("finds the system's own folder and tidemill, nothing else", function()
    for _, name in ipairs { "host.json", "host.journal", "tidemill.task", "cjson", "io" } do
      assert.matches(("there is no module '%s'"):format(name),
        load_with(("require %q"):format(name)),
        1, true)
    end
    for _, name in ipairs { "../secret", "/etc/passwd", "a..b", ".a", "", "a/b" } do
      assert.matches("is no module name", load_with(("require %q"):format(name)), 1, true)
    end
    assert.matches("'nil' is no module name", load_with("require(nil)"), 1, true)
  end)

  it("says that it is for loading only", function()
    assert.matches("^scripts/shop/init.lua:%d+: require: 'late' was not loaded with the system; "
      .. "files are read only while it is loaded: require it at the top of a file",
      (act_with "local late = require 'late' return late"))
    assert.is_nil(act_with("return require 'tidemill' and true"))
  end)

  it("loads a file once, with the same globals, and notices circles", function()
    assert.is_nil(load_with("local a = require 'lib'\nassert(a == require 'lib' and shared == 1)",
      { ["lib.lua"] = "shared = (shared or 0) + 1\nreturn {}" }))
    assert.matches("requires itself", load_with("require 'a'",
      { ["a.lua"] = "require 'b'", ["b.lua"] = "require 'a'" }))
  end)

  it("takes text, never bytecode", function()
    local code = string.dump(function() return 1 end)
    assert.matches("binary chunk", load_with("require 'b'", { ["b.lua"] = code }))
  end)
end)

describe("the library", function()
  it("sets no finalizer", function()
    assert.matches("__gc is not available", load_with "setmetatable({}, { __gc = function() end })")
  end)

  it("is found by every way to it", function()
    assert.is_nil(load_with "local t = { 1, 2 } table.insert(t, 1, 0) assert(table.remove(t) == 2)")
    assert.is_nil(load_with "assert(('ab'):rep(2, '-') == 'ab-ab' and ('x'):rep(-1) == '')")
    assert.is_nil(load_with "assert(#table.move({ 1, 2 }, 1, 2, 2) == 3)")
  end)
end)

describe("globals", function()
  it("are frozen after load, with all that they hold", function()
    local globals = [[counter = { n = 0, deep = { list = { 1 } } }
      Class = {}
      Class.__index = Class
      function Class.new() return setmetatable({ v = 1 }, Class) end
      function Class:get() return self.v + counter.n end]]
    local function run(code)
      local host = Host.new(Host.script(([[
        ConversationStep { step_id = "act", step_type = "action", next_steps = { "end" },
          save_as = "v", run = function(ctx) %s end },]]):format(code), 'start_step = "act",',
        globals))
      host:load()
      return host:start()
    end
    assert.equal(2, run("return Class.new():get() + #counter.deep.list").state.v)
    for _, code in ipairs { "counter.n = 1", "table.insert(counter.deep.list, 2)",
      "Class.new = nil", "getmetatable(Class.new()).get = nil" } do
      local turn = run(code)
      assert.equal("failed", turn.status, code)
      assert.matches("cannot be set after load", turn.error.message, 1, true)
    end
  end)
end)

describe("ctx", function()
  it("leads to nothing of the host", function()
    assert.is_nil(act_with [[
      assert(getmetatable(ctx) == false)
      for key, value in pairs(ctx) do
        assert(type(value) ~= "function" and type(value) ~= "thread", key)
      end]])
  end)

  it("has a config that cannot be written, and that cannot be stored by mistake", function()
    local function with_config(code)
      local host = Host.new((Host.script(([[
        ConversationStep { step_id = "act", step_type = "action", next_steps = { "end" },
          run = function(ctx) %s end },]]):format(code), 'start_step = "act",')
        :gsub("return tm.system {", "%0 config = { list = { 1, 2 }, deep = { a = { b = 1 } } },")))
      host:load()
      return host:start().error, host
    end
    assert.is_nil(with_config [[
      local n = 0
      for _, v in ipairs(ctx.config.list) do n = n + v end
      for key in pairs(ctx.config) do n = n + #key end
      assert(n == 11 and #ctx.config.list == 2 and ctx.config.deep.a.b == 1)
      assert(next(ctx.config.deep) == "a" and table.concat(ctx.config.list, "-") == "1-2")]])
    assert.matches("ctx.config.b cannot be written", with_config("ctx.config.deep.a.b = 2").message)
    assert.matches("ctx.state.kept: a table whose metatable has __index .* copy what you need",
      with_config("ctx.state.kept = ctx.config.deep").message)
  end)

  it("has a config that no other table of the script changes", function()
    local host = Host.new((Host.script([[
      ConversationStep { step_id = "act", step_type = "action", next_steps = next_steps,
        run = function(ctx)
          config.url, next_steps[1] = "http://other/", "act"
          return ctx.config.url
        end, save_as = "url" },]], 'start_step = "act",',
      'local config, next_steps = { url = "http://mine/" }, { "end" }')
      :gsub("return tm.system {", "%0 config = config,")))
    host:load()
    local turn = host:start()
    assert.same({ "completed", { url = "http://mine/" } }, { turn.status, turn.state })
  end)

  it("has a copy of the input: only state crosses steps", function()
    local host = Host.new(Host.script([[
      ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?",
        input_schema = { type = "structured", fields = { { name = "a", type = "text" } } },
        next_steps = { "one" } },
      ConversationStep { step_id = "one", step_type = "action", next_steps = { "say" },
        run = function(ctx) ctx.input.a = "changed" end },
      ConversationStep { step_id = "say", step_type = "agent_response", next_steps = { "two" },
        agent = "bot" },
      ConversationStep { step_id = "two", step_type = "action", next_steps = { "end" },
        run = function(ctx) return ctx.input.a end, save_as = "seen" },]], 'start_step = "ask",',
      nil, [[, bot = { respond = function(ctx, request)
        ctx.input.a, request.input.a = "changed", "changed"
        return "hi" end }]]))
    host:load()
    host:start()
    assert.equal("said", host:send({ a = "said" }).state.seen)
  end)

  it("reaches nothing once its step has ended", function()
    local host = Host.new(Host.script([[
      ConversationStep { step_id = "one", step_type = "action", next_steps = { "two" },
        run = function(ctx) keep.ctx = ctx end },
      ConversationStep { step_id = "two", step_type = "action", next_steps = { "end" },
        run = function() keep.ctx:http { url = "http://x/" } end },]], 'start_step = "one",',
      "local keep = {}"))
    host:load()
    assert.matches("the step of this ctx has ended", host:start().error.message)
    assert.equal(0, #host.requests)
  end)
end)
