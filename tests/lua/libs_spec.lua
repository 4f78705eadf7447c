-- The host's string, table and utf8 against Lua's; patterns have a spec of their own.
require "tests.lua.helper"
local twins = require "tests.lua.twins"

local values = { "a", "", "12", "1.5", 1, -1, 2.5, 2.0, true, false, {}, type, 0 / 0, 1 / 0,
  math.maxinteger, math.mininteger, setmetatable({}, { __tostring = function() return "me" end }),
  setmetatable({}, { __tostring = function() return 1 end }), setmetatable({}, { __name = 5 }) }

--- The function with each value at each of its places, one after the other, and without.
local function expect_same_arguments(expect_same, name, good)
  for place = 1, #good do
    local arguments = table.move(good, 1, #good, 1, {})
    expect_same(name, table.unpack(arguments, 1, place - 1))
    for i = 1, #values + 1 do
      arguments[place] = values[i]
      expect_same(name, table.unpack(arguments, 1, #good))
      expect_same(name, table.unpack(arguments, 1, place))
    end
  end
end

describe("string", function()
  local expect_same = twins(string, require "hostlua.string")
  local all = {}
  for i = 0, 255 do all[i + 1] = string.char(i) end
  local bytes = table.concat(all)

  it("takes, cuts and repeats as Lua's", function()
    for _, name in ipairs { "len", "lower", "upper", "reverse" } do
      expect_same_arguments(expect_same, name, { "aBc" })
      expect_same(name, bytes)
      expect_same(name, bytes:rep(100))
    end
    local places = { -7, -6, -5, -2, -1, 0, 1, 2, 5, 6, 9, math.maxinteger, math.mininteger, 2.0 }
    for _, s in ipairs { "hello", "", "a\0b" } do
      for _, i in ipairs(places) do
        expect_same("byte", s, i)
        expect_same("sub", s, i)
        for _, j in ipairs(places) do
          expect_same("byte", s, i, j)
          expect_same("sub", s, i, j)
        end
      end
    end
    for _, name in ipairs { "byte", "sub", "rep" } do
      expect_same_arguments(expect_same, name, { "abc", 2, name == "rep" and "-" or 3 })
    end
    expect_same("byte", bytes, 1, -1)
    expect_same("char", bytes:byte(1, -1))
    expect_same_arguments(expect_same, "char", { 65, 66 })
    expect_same("char", 256)
    expect_same("char")
    for n = -1, 9 do
      for _, s in ipairs { "", "x", "ab", "abc" } do
        expect_same("rep", s, n)
        for _, separator in ipairs { "", ",", "--" } do expect_same("rep", s, n, separator) end
      end
    end
    expect_same("rep", "ab", 1 << 31)
    expect_same("rep", "a", math.maxinteger, "b")
    expect_same("rep", "x", 100000, ", ")
  end)

  it("formats as Lua's", function()
    local flags = { "", "-", "+", "#", "0", " ", "5", "-5", "05", "+5", ".0", ".3", "10.3", "-10.3",
      "99.99", "100", ".100", "5.", "-+ #0", "--5", "00", "0-5", "1234567890123456789012345" }
    for _, flag in ipairs(flags) do
      for conversion in ("diucoxXaAeEfFgGpqsnlh%"):gmatch "." do
        local spec = "<%" .. flag .. conversion .. ">"
        for i = 1, #values do
          if type(values[i]) ~= "table" or getmetatable(values[i]) then
            expect_same("format", spec, values[i])
          end
        end
        for _, value in ipairs { -5.75, 1e300, 5e-324, 0.0, -0.0, 65, bytes, ("x"):rep(150) } do
          expect_same("format", spec, value)
        end
        expect_same("format", spec)
      end
    end
    expect_same("format", "%s %d%% of %q, %5.1f", "all", 10, "te\"xt\n\0001", 99.95)
    expect_same("format", "%")
    expect_same("format", "100%", 1)
    expect_same("format", "%s%s", ("a"):rep(5000), ("b"):rep(5000))
    expect_same("format", ("%-20s|"):rep(200), ("word "):rep(200):byte(1, 200))
    expect_same("format", "a\0%sb\0", "c\0d")
    expect_same("format", "%.3s %10s", "long\0", "x")
    expect_same("format", "%q %q %q", 1 / 3, -1 / 0, math.mininteger)
    expect_same("format")
  end)
end)

describe("table", function()
  local expect_same = twins(table, require "hostlua.table")
  local function make(...)
    local n, list = select("#", ...), { ... }
    return { make = function() return table.move(list, 1, n, 1, {}) end }
  end
  --- Behaves like a list of three, and notes what is done to it.
  local function proxy()
    local under, log = { "a", "b", "c" }, {}
    return setmetatable({ log = log }, {
      __len = function() log[#log + 1] = "#" return #under end,
      __index = function(_, i) log[#log + 1] = "r" .. tostring(i) return under[i] end,
      __newindex = function(_, i, v)
        log[#log + 1] = ("w%s=%s"):format(i, v)
        under[i] = v
      end,
      __eq = function() return true end,
    })
  end
  --- What a function does to proxies, and returns.
  local function logged(lib)
    return setmetatable({}, { __index = function(_, name)
      return function(...)
        local t = proxy()
        local result = table.pack(pcall(lib[name], t, ...))
        for i = 1, result.n do if result[i] == t then result[i] = "itself" end end
        local log = rawget(t, "log")
        rawset(t, "log", nil)
        return table.concat(log, " "), table.unpack(result, 1, result.n)
      end
    end })
  end
  local ours = require "hostlua.table"
  local expect_same_log = twins(logged(table), logged(ours))

  it("inserts, removes, moves, joins and unpacks as Lua's", function()
    for i = -2, 5 do
      expect_same("insert", make("a", "b", "c"), i, "x")
      expect_same("remove", make("a", "b", "c"), i)
      expect_same("remove", make(), i)
      expect_same_log("insert", i, "x")
      expect_same_log("remove", i)
      for j = -2, 5 do
        expect_same("unpack", make("a", "b", "c"), i, j)
        expect_same("concat", make("a", 2, 3.5), ", ", i, j)
        expect_same_log("unpack", i, j)
        expect_same_log("concat", "-", i, j)
        for k = -2, 5 do
          expect_same("move", make("a", "b", "c", "d"), i, j, k)
          expect_same("move", make("a", "b", "c", "d"), i, j, k, make(1, 2))
        end
        expect_same_log("move", i, j, 2)
        expect_same_log("move", i, j, 2, proxy())
      end
    end
    expect_same("insert", make("a"), "x")
    expect_same("insert", make("a"))
    expect_same("insert", make("a"), 1, 2, 3)
    expect_same("insert", nil, 1)
    expect_same("remove", make("a", "b"))
    expect_same("pack")
    expect_same("pack", nil, 1, nil)
    expect_same("concat", make("a", {}, "b"))
    expect_same("concat", make("a", "b"), 1)
    expect_same("concat", make("a", "b"), {})
    for _, most in ipairs { math.maxinteger, math.mininteger } do
      expect_same("unpack", make("a"), most)
      expect_same("unpack", make("a"), 1, most)
      expect_same("unpack", make("a"), most, most)
      expect_same("move", make("a"), most, most, 1)
      expect_same("move", make("a"), 1, most, 2)
      expect_same("move", make("a"), -1, most, 2)
      expect_same("move", make("a"), 1, 2, most)
      expect_same("concat", make("a"), "", most, most)
      expect_same("insert", make("a"), most, 1)
      expect_same("remove", make("a"), most)
    end
  end)

  it("takes the arguments that Lua's takes", function()
    for _, name in ipairs { "insert", "remove", "concat", "unpack", "sort" } do
      for i = 1, #values do
        if type(values[i]) ~= "table" then
          expect_same(name, values[i])
          expect_same(name, values[i], 1)
          expect_same(name, make(3, 1, 2), values[i])
        end
      end
      for _, length in ipairs { "x", 1.5, false } do
        expect_same(name, setmetatable({}, { __len = function() return length end }))
      end
    end
    expect_same("unpack", "text", 1, 2)
    expect_same("concat", setmetatable({}, { __len = function() return 2 end }))
  end)

  it("sorts as Lua's, equal elements included", function()
    math.randomseed(twins.seed)
    local function by_first(a, b) return a:sub(1, 1) < b:sub(1, 1) end
    for round = 1, 1500 * twins.rounds do
      local numbers, texts = {}, {}
      for i = 1, math.random(0, round % 10 == 0 and 127 or 20) do -- from 128 on Lua draws pivots
        numbers[i] = math.random(1, round % 3 == 0 and 5 or 1000)
        texts[i] = string.char(math.random(97, 102), math.random(97, 122))
      end
      expect_same("sort", make(table.unpack(numbers)))
      expect_same("sort", make(table.unpack(texts)))
      expect_same("sort", make(table.unpack(texts)), by_first)
      expect_same("sort", make(table.unpack(numbers)), function(a, b) return a > b end)
      expect_same("sort", make(table.unpack(numbers)), function(a, b) return a <= b end)
      expect_same("sort", make(table.unpack(numbers)), function() return true end)
      expect_same("sort", make(table.unpack(numbers)), function(a) return a % 2 == 0 end)
    end
    expect_same("sort", make(1, "a", 2))
    expect_same("sort", make(3, 1, 2), function() error("own", 0) end)
    expect_same("sort", setmetatable({}, { __len = function() return 1 << 40 end }))
    expect_same_log("sort")
    expect_same_log("sort", function(a, b) return a > b end)
  end)

  it("sorts what is in order already, backwards, or all the same", function()
    for _, n in ipairs { 1000, 20000 } do
      local up, down, same = {}, {}, {}
      for i = 1, n do up[i], down[i], same[i] = i, n - i + 1, 7 end
      for _, list in ipairs { up, down, same } do ours.sort(list) end
      for i = 1, n do assert(up[i] == i and down[i] == i and same[i] == 7) end
    end
  end)
end)

describe("utf8", function()
  local expect_same = twins(utf8, require "hostlua.utf8")
  local function collect(codes, ...)
    local found = {}
    for place, code in codes(...) do found[#found + 1] = place .. ":" .. code end
    return table.concat(found, " ")
  end
  local expect_same_codes = twins(
    { codes = function(...) return collect(utf8.codes, ...) end },
    { codes = function(...) return collect(require "hostlua.utf8".codes, ...) end })

  it("decodes and encodes as Lua's", function()
    local codes = { 0, 1, 0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xD800, 0xDFFF, 0xE000, 0xFFFF, 0x10000,
      0x10FFFF, 0x110000, 0x1FFFFF, 0x200000, 0x3FFFFFF, 0x4000000, 0x7FFFFFFF, 0x80000000, -1 }
    local texts = { "", "abc", "\xc3\xa4\xe2\x82\xac", "\xff", "\x80", "a\x80b", "\xc0\x80",
      "\xe2\x82",
      "\xe2\x82a", "\xf8\x88\x80\x80\x80", "\xfc\x84\x80\x80\x80\x80", "\xfe\x80",
        "a\0b\xc3\xa4", "\xc3" }
    for _, code in ipairs(codes) do
      expect_same("char", code)
      expect_same("char", code, 65, code)
      if code >= 0 and code < 1 << 31 then texts[#texts + 1] = "x" .. utf8.char(code) .. "y" end
    end
    assert.equal(utf8.charpattern, require "hostlua.utf8".charpattern)
    for _, s in ipairs(texts) do
      expect_same_codes("codes", s)
      expect_same_codes("codes", s, true)
      for i = -5, 6 do
        expect_same("len", s, i)
        expect_same("len", s, i, nil, true)
        expect_same("codepoint", s, i)
        expect_same("codepoint", s, i, i, true)
        for j = -5, 6 do
          expect_same("len", s, i, j)
          expect_same("codepoint", s, i, j)
          expect_same("codepoint", s, i, j, true)
          expect_same("offset", s, i, j)
        end
        expect_same("offset", s, i)
      end
    end
    expect_same("char")
    for name, good in pairs { len = { "abc", 1, 2 }, codepoint = { "abc", 1, 2 }, char = { 65, 66 },
      offset = { "abc", 1, 1 } } do
      expect_same_arguments(expect_same, name, good)
    end
    expect_same("codes", 5)
    expect_same("codes", {})
    expect_same("codes")
  end)

  it("agrees with Lua's on any bytes", function()
    math.randomseed(twins.seed)
    local bytes = { "a", "b", "\0", "\x80", "\xbf", "\xc3", "\xe2", "\xed", "\xf0", "\xf4",
      "\xfd", "\xff" }
    for _ = 1, 20000 * twins.rounds do
      local picked = {}
      for i = 1, math.random(0, 9) do picked[i] = bytes[math.random(#bytes)] end
      local s, lax = table.concat(picked), math.random(2) == 1
      expect_same("len", s, 1, -1, lax)
      expect_same("codepoint", s, 1, -1, lax)
      expect_same_codes("codes", s, lax)
      expect_same("offset", s, math.random(-9, 9), math.random(#s + 1))
    end
  end)
end)
