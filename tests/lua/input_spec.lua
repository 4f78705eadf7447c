-- Every input type, every refusal, the order in which choices match, and the hints.
require "tests.lua.helper"
local phrases = require "tidemill.phrases"
local input = require "tidemill.input"
local input_schema = require "tidemill.input_schema"
local json = require "host.json"

local function compile(schema)
  local problems = {}
  local compiled = input_schema.compile(schema, function(text) problems[#problems + 1] = text end)
  return compiled, table.concat(problems, "\n")
end

local function accept(schema, raw, partial, attempt)
  local compiled, problems = compile(schema)
  assert.equal("", problems)
  return input.accept(compiled, raw, partial, attempt or 1,
    function() return { state = { k = 1 } } end)
end

local function value_of(schema, raw)
  local accepted, hint = accept(schema, raw)
  assert.is_nil(hint)
  return accepted.value
end

local function hint_of(schema, raw, attempt)
  local accepted, hint = accept(schema, raw, nil, attempt)
  assert.is_nil(accepted)
  return hint
end

local function problem_of(schema)
  local compiled, problems = compile(schema)
  assert.is_nil(compiled)
  return problems
end

describe("text", function()
  it("keeps what was written", function()
    assert.equal("  hi ", value_of({ type = "text" }, "  hi "))
  end)

  it("counts characters, not bytes", function()
    local schema = { type = "text", min_length = 3, max_length = 4 }
    assert.equal("äöü", value_of(schema, "äöü"))
    assert.equal("The answer is too short: it needs at least 3 characters, this has 2.",
      hint_of(schema, "äö"))
    assert.equal("The answer is too long: it may have at most 4 characters, this has 5.",
      hint_of(schema, "äöüßé"))
  end)

  it("matches a pattern", function()
    local schema = { type = "text", pattern = "^%u%d+$" }
    assert.equal("A17", value_of(schema, "A17"))
    assert.equal("The answer does not have the expected form.", hint_of(schema, "a17"))
  end)

  it("is nothing but text", function()
    assert.equal("Please answer with text.", hint_of({ type = "text" }, 5))
    assert.equal("Please answer with text.", hint_of({ type = "text" }, { a = 1 }))
  end)

  it("may be empty only when it is not required", function()
    assert.equal("", value_of({ type = "text" }, " "))
    assert.equal("", value_of({ type = "text" }, json.null))
    assert.equal("An answer is needed here.", hint_of({ type = "text", required = true }, " \t"))
    assert.equal(json.null, value_of({ type = "number" }, ""))
  end)
end)

describe("numbers", function()
  it("are read exactly", function()
    assert.equal(12, value_of({ type = "number" }, " 12 "))
    assert.equal("integer", math.type(value_of({ type = "number" }, "12")))
    assert.equal(-3.5, value_of({ type = "number" }, "-3.5"))
    assert.equal(9223372036854775807, value_of({ type = "integer" }, "9223372036854775807"))
    assert.equal(3, value_of({ type = "integer" }, 3.0))
    assert.equal(5, value_of({ type = "integer" }, "+5"))
  end)

  it("are refused when they are none", function()
    for _, raw in ipairs { "abc", "0x10", "nan", "inf", "1e999", "1,5", "12 apples", true, {} } do
      assert.matches("Please answer with a number", hint_of({ type = "number" }, raw))
    end
    for _, raw in ipairs { "1.5", 2.5, "x", "99999999999999999999" } do
      assert.matches("whole number", hint_of({ type = "integer" }, raw))
    end
  end)

  it("have bounds", function()
    local schema = { type = "integer", min = 1, max = 9 }
    assert.equal(1, value_of(schema, "1"))
    assert.equal("The answer must be at least 1.", hint_of(schema, "0"))
    assert.equal("The answer must be at most 9.", hint_of(schema, "10"))
  end)
end)

-- These end at once, or not for minutes.
describe("a long answer", function()
  local long = 1000000

  it("is no number after one look", function()
    local number = { type = "number" }
    local ones = ("1"):rep(long)
    assert.is_string(hint_of(number, ones .. "x"))
    assert.is_string(hint_of(number, ones .. "." .. ones .. "x"))
  end)

  it("is neither a number nor a date nor an option", function()
    for _, type in ipairs { "number", "integer", "boolean", "date", "email", "phone" } do
      assert.is_false(phrases.may_be(("1"):rep(16001)))
      assert.is_string(hint_of({ type = type }, "1" .. (" "):rep(1000)))
    end
    local choice = { type = "choice", options = { "1", "two" } }
    assert.matches("Please choose one of: '1', 'two'", hint_of(choice, ("1"):rep(4001)))
    choice.allow_custom_response = true
    assert.equal(("t"):rep(4001), value_of(choice, ("t"):rep(4001)))
  end)

  it("is told of a few members that are no fields", function()
    local raw = { n = 1, [("k"):rep(5000)] = 1 }
    for i = 1, 9000 do raw["member" .. i] = 1 end
    local fields = { { name = "n", type = "integer" } }
    local hint = hint_of({ type = "structured", fields = fields }, raw)
    assert.matches("^kkk.*there is no such field", hint)
    assert.equal(5, select(2, hint:gsub("no such field", "")))
    assert.is_true(#hint < 1000)
  end)

  it("is compared with phrases after one look", function()
    local said = "hello" .. (" "):rep(long) .. "world"
    assert.equal(said, phrases.normalized(said .. " !?. "))
    assert.equal("?!", phrases.normalized " ?! ")
  end)
end)

describe("boolean, date, email, phone", function()
  it("understand people", function()
    for raw, value in pairs { yes = true, Y = true, ["TRUE"] = true, on = true, ["1"] = true,
      no = false, N = false, ["false"] = false, off = false, ["0"] = false } do
      assert.equal(value, value_of({ type = "boolean" }, raw))
    end
    assert.equal(false, value_of({ type = "boolean" }, false))
    assert.equal("Please answer with yes or no.", hint_of({ type = "boolean" }, "maybe"))
  end)

  it("know the calendar", function()
    for _, day in ipairs { "2024-02-29", "2000-02-29", "2025-12-31" } do
      assert.equal(day, value_of({ type = "date" }, " " .. day .. " "))
    end
    for _, day in ipairs { "2023-02-29", "1900-02-29", "2025-13-01", "2025-04-31", "2025-00-10",
      "31.12.2025", "2025-1-1", "tomorrow" } do
      assert.matches("Please answer with a date", hint_of({ type = "date" }, day))
    end
    local schema = { type = "date", min = "2025-01-01", max = "2025-12-31" }
    assert.equal("The answer must be at least 2025-01-01.", hint_of(schema, "2024-12-31"))
    assert.equal("The answer must be at most 2025-12-31.", hint_of(schema, "2026-01-01"))
  end)

  it("know an address when they see one", function()
    for _, mail in ipairs { "a@b.org", "ada.lovelace+x@mill.example.com", "jürgen@müller.de" } do
      assert.equal(mail, value_of({ type = "email" }, mail))
    end
    for _, mail in ipairs { "a", "a@b", "@b.org", "a@b.org c", "a@@b.org", "a@.org", "a@b..org",
      "a b@c.org", "a@b.org>", ("x"):rep(250) .. "@b.org" } do
      assert.matches("e%-mail", hint_of({ type = "email" }, mail))
    end
  end)

  it("keep a telephone number's digits", function()
    assert.equal("+49301234567", value_of({ type = "phone" }, "+49 (30) 123-45.67"))
    for _, number in ipairs { "12345", "call me", "+", "1234567890123456", "12+34567",
      "+49 30 1234567\n7" } do
      assert.matches("telephone", hint_of({ type = "phone" }, number))
    end
  end)
end)

describe("choice", function()
  local options = {
    { label = "Two", value = "1" }, { label = "one", value = "two" }, "Green tea", "Greyhound",
    { label = "Five", value = 5 },
  }
  local schema = { type = "choice", options = options }

  it("matches value, then label, then number, then beginning", function()
    assert.equal("1", value_of(schema, "1"), "value before number")
    assert.equal("two", value_of(schema, "two"), "value before label")
    assert.equal("1", value_of(schema, "TWO"), "label, case-insensitive")
    assert.equal("two", value_of(schema, "2"), "number")
    assert.equal("Green tea", value_of(schema, "3"))
    assert.equal(5, value_of(schema, "5"))
    assert.equal(5, value_of(schema, 5))
    assert.equal("Green tea", value_of(schema, "gree"), "unambiguous beginning")
  end)

  it("says what was ambiguous or unknown", function()
    assert.equal("The answer could mean 'Green tea', 'Greyhound'; please write more of it.",
      hint_of(schema, "gr"))
    assert.equal("Please choose one of: 'Two', 'one', 'Green tea', 'Greyhound', 'Five'.",
      hint_of(schema, "blue"))
    assert.matches("choose one of", hint_of(schema, "9"))
    assert.matches("choose one of", hint_of(schema, { "Two" }))
  end)

  it("takes custom text where that is allowed", function()
    local accepted = accept({ type = "choice", options = options, allow_custom_response = true },
      " something else ")
    assert.same({ value = "something else", outcome = "custom" }, accepted)
    accepted = accept({ type = "choice", options = options, allow_custom_response = true }, "gree")
    assert.same({ value = "Green tea" }, accepted)
    assert.matches("too short", hint_of(
      { type = "choice", options = options, allow_custom_response = true, min_length = 5 }, "abc"))
  end)

  it("refuses options that cannot work, at load", function()
    assert.matches("'options' is empty", problem_of { type = "choice", options = {} })
    assert.matches("'options' is missing", problem_of { type = "choice" })
    assert.matches("is there twice", problem_of { type = "choice", options = { "a", "a" } })
    assert.matches("did you mean 'label'", problem_of { type = "choice",
      options = { { labl = "a" } } })
  end)
end)

describe("structured", function()
  local schema = { type = "structured", fields = {
    { name = "what", type = "text", required = true, prompt = "What is it?", min_length = 3,
      validation_hints = { min_length = "A word will do." } },
    { name = "when", type = "choice", options = { "now", "later" }, required = true },
    { name = "budget", type = "number", prompt = "Any budget?" },
  } }

  it("takes an object at once", function()
    assert.same({ what = "boat", when = "now", budget = 5 },
      value_of(schema, { what = "boat", when = "NOW", budget = "5" }))
    assert.same({ what = "boat", when = "now", budget = json.null },
      value_of(schema, { what = "boat", when = "now" }))
  end)

  it("names everything that is wrong, in the order of the fields", function()
    assert.equal("what: The answer is too short: it needs at least 3 characters, this has 2. "
      .. "A word will do. when: An answer is needed here. colour: there is no such field.",
      hint_of(schema, { what = "it", colour = "red" }))
    assert.matches("wat: there is no such field; did you mean 'what'",
      hint_of(schema, { wat = "boat", when = "now" }))
    assert.matches("answer with an object", hint_of(schema, json.array { 1 }))
  end)

  it("names the first thing that is wrong, when told so", function()
    local compiled = compile(schema)
    compiled.first_only = true
    local function hint(raw) return select(2, input.accept(compiled, raw, nil, 1, error)) end
    assert.equal("what: An answer is needed here.", hint { when = "never", colour = "red" })
    assert.equal("when: Please choose one of: 'now', 'later'.",
      hint { what = "boat", when = "never", colour = "red" })
    assert.equal("colour: there is no such field.",
      hint { what = "boat", when = "now", colour = "red" })
  end)

  it("may be filled bit by bit, when told so", function()
    local compiled = compile(schema)
    compiled.by_and_by = true
    local function take(raw, partial) return input.accept(compiled, raw, partial, 1, error) end
    assert.same({ partial = { when = "now" } }, take { when = "now" })
    local accepted, hint = take({ what = "it", budget = "7" }, { when = "now" })
    assert.same({ partial = { when = "now", budget = 7 } }, accepted)
    assert.matches("^what: The answer is too short", hint)
    assert.same({ value = { what = "boat", when = "now", budget = 7 } },
      take("boat", accepted.partial))
    assert.same({ value = { what = "boat", when = "now", budget = json.null } },
      take({ what = "boat" }, { when = "now" }))
    accepted, hint = take { what = json.null, when = "now" }
    assert.same({ { partial = { when = "now" } }, "what: An answer is needed here." },
      { accepted, hint })
  end)

  it("takes plain answers field by field", function()
    local accepted = accept(schema, "boat")
    assert.same({ partial = { what = "boat" } }, accepted)
    local _, hint = accept(schema, "someday", accepted.partial)
    assert.equal("when: Please choose one of: 'now', 'later'.", hint)
    accepted = accept(schema, "l", accepted.partial)
    assert.same({ partial = { what = "boat", when = "later" } }, accepted)
    assert.same({ value = { what = "boat", when = "later", budget = json.null } },
      accept(schema, "", accepted.partial))
    assert.same({ value = { what = "boat", when = "now", budget = 2 } },
      accept(schema, { when = "now", budget = 2 }, { what = "boat" }))
  end)

  it("shows the form, and which field a plain answer fills", function()
    local compiled = compile(schema)
    local public, question = input.shown(compiled, { what = "x", when = "now" })
    local shown = json.decode(json.encode(public))
    assert.equal("budget", shown.next)
    assert.equal("Any budget?", question)
    assert.same({ "what", "when", "budget" },
      { shown.fields[1].name, shown.fields[2].name, shown.fields[3].name })
    assert.same({ { label = "now", value = "now" }, { label = "later", value = "later" } },
      json.decode(json.encode(shown.fields[2].options)))
    assert.is_nil(shown.fields[1].validation_hints)
  end)

  it("is looked at as a whole when all fields are fine, and asked for anew when refused", function()
    local dates = { type = "structured", fields = { { name = "from", type = "date" },
      { name = "to", type = "date" } },
      validation_hints = { validate = "Swap them?" },
      validate = function(value)
        return value.from == json.null or value.from <= value.to, "It ends before it begins."
      end }
    local fine = { from = "2025-01-01", to = "2025-01-02" }
    assert.same(fine, value_of(dates, fine))
    local accepted, hint = accept(dates, "2024-01-01", { from = "2025-01-01" })
    assert.same({ partial = {} }, accepted)
    assert.equal("It ends before it begins. Swap them?", hint)
    accepted, hint = accept(dates, { from = "2025-01-03", to = "2025-01-02" })
    assert.same({ { partial = {} }, "It ends before it begins. Swap them?" }, { accepted, hint })
  end)

  it("that is required needs at least one field", function()
    local some = { type = "structured", required = true,
      fields = { { name = "a", type = "text" } } }
    assert.same({ a = "x" }, value_of(some, { a = "x" }))
    local accepted, hint = accept(some, {})
    assert.same({ { partial = {} }, "An answer is needed here." }, { accepted, hint })
    some.required = false
    assert.same({ a = "" }, value_of(some, {}))
  end)

  it("refuses fields without an order, twice, or nested", function()
    assert.matches("must be a list", problem_of { type = "structured",
      fields = { what = { type = "text" } } })
    assert.matches("twice", problem_of { type = "structured",
      fields = { { name = "a", type = "text" }, { name = "a", type = "text" } } })
    assert.matches("not supported yet", problem_of { type = "structured",
      fields = { { name = "a", type = "structured", fields = {} } } })
    assert.matches("'fields' is empty", problem_of { type = "structured", fields = {} })
    assert.matches("field 'a': input: unknown field 'requred'; did you mean 'required'",
      problem_of { type = "structured", fields = { { name = "a", type = "text",
        requred = true } } })
  end)
end)

describe("hints and checks", function()
  it("adds the hint of the rule, or of the attempt", function()
    local by_rule = { type = "text", required = true, min_length = 5,
      validation_hints = { min_length = "Say more.", required = "Say something." } }
    assert.equal("An answer is needed here. Say something.", hint_of(by_rule, ""))
    assert.matches("this has 2%. Say more%.$", hint_of(by_rule, "ab"))
    local in_turn = { type = "text", min_length = 5, validation_hints = { "First.", "Second." } }
    assert.matches("First%.$", hint_of(in_turn, "ab", 1))
    assert.matches("Second%.$", hint_of(in_turn, "ab", 2))
    assert.matches("Second%.$", hint_of(in_turn, "ab", 7))
  end)

  it("asks the script's validate last", function()
    local function validate(value, ctx)
      if value == "no" then return false, "Not this one." end
      return value ~= "never" and ctx.state.k == 1
    end
    assert.equal("yes", value_of({ type = "text", validate = validate }, "yes"))
    assert.equal("Not this one.", hint_of({ type = "text", validate = validate }, "no"))
    assert.equal("This answer is not accepted.", hint_of({ type = "text", validate = validate },
      "never"))
    assert.equal("?", hint_of({ type = "text",
      validate = function() return false, "\255" end }, "x"), "what can be stored, always")
  end)

  it("refuses contradictions at load", function()
    assert.matches("no answer can fit", problem_of { type = "text", min_length = 5,
      max_length = 2 })
    assert.matches("no answer can fit", problem_of { type = "integer", min = 5, max = 2 })
    assert.matches("must be a date", problem_of { type = "date", min = "soon" })
    assert.matches("must be a finite number", problem_of { type = "number", min = "1" })
    assert.matches("no Lua pattern", problem_of { type = "text", pattern = "[a" })
    assert.matches("'min' does not belong to 'text'", problem_of { type = "text", min = 1 })
    assert.matches("did you mean 'text'", problem_of { type = "txt" })
    assert.matches("'type' is missing", problem_of { required = true })
    assert.matches("'max' must be a finite number", problem_of { type = "number",
      max = math.huge })
    assert.matches("'value' must be a text, a finite number or true/false", problem_of {
      type = "choice", options = { { label = "a", value = 0 / 0 } } })
    assert.matches("option 2: label 'YES' is there twice", problem_of { type = "choice",
      options = { { label = "Yes", value = 1 }, { label = "YES", value = 2 } } })
    assert.matches("without a metatable", problem_of(setmetatable({ type = "text" },
      { __index = { nonsense = 1 } })))
  end)

  it("refuses hints that no refusal would show", function()
    assert.matches("'min_lenght', which is no rule; did you mean 'min_length'", problem_of {
      type = "text", validation_hints = { min_lenght = "x" } })
    assert.matches("must be a table of texts", problem_of { type = "text",
      validation_hints = { "\255" } })
  end)
end)
