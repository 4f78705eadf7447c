-- The host's find, match, gmatch and gsub against Lua's: the same results and the same messages, on
-- cases by hand and on hundreds of thousands at random. SEED=n repeats a run.
require "tests.lua.helper"
local twins = require "tests.lua.twins"
local expect_same = twins(string, require "hostlua.string")

--- What an iterator gives, in a table; it ends on malformed patterns, too.
local function collect(gmatch, ...)
  local found, most = {}, 50
  for a, b in gmatch(...) do
    found[#found + 1] = ("%s/%s"):format(a, b)
    if #found == most then break end
  end
  return table.concat(found, " ")
end

local expect_same_matches = twins(
  { gmatch = function(...) return collect(string.gmatch, ...) end },
  { gmatch = function(...) return collect(require "hostlua.string".gmatch, ...) end })

local function expect_all_same(s, pattern, replacement, init, most)
  expect_same("find", s, pattern, init)
  expect_same("match", s, pattern, init)
  expect_same_matches("gmatch", s, pattern, init)
  expect_same("gsub", s, pattern, replacement, most)
end

local patterns = { "", "a", "^a", "a$", "^$", "^a*$", "%a+", "[abc]", "[^abc]", "[a-c]+", "[]]",
  "[^]]", "[a-]", "[%a_][%w_]*", "a.c", "a*b", "a-b", "a+b", "a?b", "(a)(b)%2", "(a*)%1", "()a()",
  "%b()", "%b", "%bx", "%bxy", "%b((", "%f[%w]%w+", "%f", "%f[%W]", "%f[^%w]", "%f[\0]", "[", "[a",
  "[%", "[%a", "[]", "[^", "[a-", "[a-%", "%", "a%", "(", ")", "(a", "a)", "(()", "(()())", "%1",
  "%0", "(a)%2", "(%1)", "()%1", "x*", ".-", ".*", "^.-$", "%.", "%%", "$", "$a", "a$b", "^^",
  "^^a", "a^", "[a-z]+@[a-z]+", "^(%d%d%d%d)-(%d%d)-(%d%d)$", "%x%x", "%g+", "%p", "%c", "%l%u",
  "%L%U",
  "[%]]", "[%d-x]", "[z-a]", "[a-a]", "[--/]", "[^%s]+$", "(.)%1", "((a)b)%1", "((a)b)%2", "%z",
  "[[]", "a**", "^*", "*", "*a", "?", "-", "-a", "+", "%a?%d-$", "\0", "a\0b", "[\0]", "a\xff",
  "[\x80-\xff]+", "%\xff", ".-.-b", "(.-)%s*$", "^%s*(.-)%s*$", "(%w+)=(%w+)", "()", "(())",
  ("(a)"):rep(32), ("(a)"):rep(33), ("()"):rep(32), ("()"):rep(33), ("a?"):rep(199),
  ("a?"):rep(200), ("a?"):rep(201), ("a?"):rep(400), ("a-"):rep(201), ("(a"):rep(40), "%c[%c]",
  "%A%C%D%G%L%P%S%U%W%X", "[%A][%D]", "%Z", "%1(a)", "a%b", "(a)%b", "[a%]b]", "[%-]", "[+-]" }
local subjects = { "", "a", "b", "ab", "abc", "aab", "A123", "hello world", "(a(b)c)", "((", "x_1",
  "a.c", "%", "$", "]", "-", "[a]", "2026-11-22", "me@host.org", "aXbY", "abab", "\xc3\xa9",
  " \t\n", "^a", "a-", "()", "xx(yy", "a\0b", "\0", "THE (quick) fox", " key=val, x=y ",
  ("a"):rep(250) }
local replacements = { "", "x", "%0", "%1", "%2", "<%0%1>", "%%", "%", "%a", "a%", "%9", 12, 1.5,
  true, {}, { a = "A", ab = 1, b = false, [1] = "one" }, { a = {} }, function() end,
  function(a, b) return b or a end, function() return false end, function() return {} end,
  function() return 7 end, function() error "own" end,
  setmetatable({}, { __index = function(_, key) return key .. "!" end }) }

describe("patterns", function()
  it("find, match and replace as Lua's, in cases by hand", function()
    for _, pattern in ipairs(patterns) do
      for i, s in ipairs(subjects) do
        expect_all_same(s, pattern, replacements[i % #replacements + 1])
        expect_all_same(s, pattern, "<%1>", i % 5 - 3, i % 4 - 1)
        expect_same("find", s, pattern, i % 7 - 3, true)
      end
    end
    for _, replacement in pairs(replacements) do
      for _, pattern in ipairs { "a", "(a)", "()", "(a)(b)", "%f[%w]", "", "^a", "x" } do
        for most = -1, 3 do expect_same("gsub", "abab a", pattern, replacement, most) end
      end
    end
  end)

  it("take the arguments that Lua's take", function()
    local values = { "a", 1, 2.5, true, {}, type, math.maxinteger, math.mininteger, "1", "x",
      0 / 0 }
    for _, name in ipairs { "find", "match", "gsub", "gmatch" } do
      for i = 1, #values do
        expect_same(name, "a1a", "a", values[i])
        expect_same(name, "a1a", values[i])
        expect_same(name, values[i])
        expect_same("gsub", "a1a", "a", "b", values[i])
        expect_same("find", "a1a", "1", values[i], values[i])
      end
      expect_same(name, "a1a", "a", nil)
      expect_same(name, "a1a", nil)
      expect_same(name, "a1a")
    end
    expect_same("find")
    expect_same("gsub", "a", "a")
    for init = -6, 6 do expect_all_same("abcab", "b", "x", init, init) end
    for _, init in ipairs { math.maxinteger, math.mininteger } do
      expect_all_same("abcab", "b", "x", init, init)
    end
  end)

  it("agree with Lua's on long texts", function()
    local long = ("abc "):rep(20000)
    for _, pattern in ipairs { "^.-$", "(%w+)%s*$", "[^c]*", "%b  ", ".*a", "%f[%w]c", "(.)%1",
      "c a", "x" } do
      for _, name in ipairs { "find", "match" } do expect_same(name, long, pattern, -5000) end
      expect_same("gsub", long:sub(1, 3000), pattern, "%0-")
    end
    expect_same("find", long, long)
    expect_same("find", long, long .. "x")
    expect_same("gsub", long, "%w+", "%0%0")
    expect_same("gsub", long, "b", { b = "BB" })
  end)

  it("agree with Lua's on anything at all", function()
    math.randomseed(twins.seed)
    local random = math.random
    local function text(letters, most)
      local picked = {}
      for i = 1, random(0, most) do picked[i] = letters[random(#letters)] end
      return table.concat(picked)
    end
    local simple = { "a", "a", "b", "1", " ", "(", ")", "\0", "\xff", "%", "-" }
    local parts = { "a", "a", "b", "1", ".", "%", "%a", "%d", "%s", "%W", "*", "+", "-", "?", "[",
      "]", "^", "$", "(", ")", "()", "%b()", "%f", "%1", "%2", "[^a]", "[a-b]", "[%d]", "\0",
      "\xff" }
    local values = { "", "x", "%0", "%1%1", "%%", "%2", "%", {}, { a = "A", b = false }, 5,
      function(a) return a ~= "a" and "f" end }
    for _ = 1, 100000 * twins.rounds do
      expect_all_same(text(simple, 12), text(parts, 6), values[random(#values)],
        random(4) == 1 and random(-9, 9) or nil, random(4) == 1 and random(-1, 4) or nil)
    end
  end)
end)
