-- What `tidemill check` finds, each rule by a system that breaks it alone; the guide's own mistakes
-- in a port of its flows; nothing in what is shipped.
require "tests.lua.helper"

local folder = {} -- the files of the system that is checked, by path
package.loaded["host.file"] = {
  read = function(path)
    local text = folder[path]
    if not text then return nil, { code = "script.not_found", message = path } end
    return text, "@scripts/it/" .. path
  end,
}
local check = require "tidemill.check"
local json = require "host.json"

local function findings_of(name, files)
  folder = files
  return json.decode(check.run(name)).items
end

local FLOW = [[
local tm = require "tidemill"
local S = tm.ConversationStep
local one = tm.AssistantAgent { user_id = "one" }
local two = tm.AssistantAgent { user_id = "two" }
local function ask(id, t)
  t.step_id, t.step_type, t.prompt = id, "user_input", t.prompt or "?"
  t.input_schema = t.input_schema or { type = "text", required = true }
  return S(t)
end
local function say(id, t)
  t.step_id, t.step_type, t.agent = id, "agent_response", t.agent or one
  t.response = t.response or "Well."
  return S(t)
end
local flow = tm.ConversationFlow {
  flow_id = "f", start_step = "a", end_steps = { "z" }, variables = %s, steps = { %s } }
return tm.system { agents = { one = one, two = two }, flows = { flow },
  config = { currency = "EUR" } }
]]

--- Findings of a flow of these steps; `two` is used so that no agent is idle.
local function of(steps, variables)
  local items = findings_of("it", { ["init.lua"] = FLOW:format(variables or "{}", steps) })
  local kept = {}
  for _, item in ipairs(items) do
    if not item.text:find("agent 'two'", 1, true) then kept[#kept + 1] = item end
  end
  return kept
end

local function shown(items)
  local lines = {}
  for i, item in ipairs(items) do
    lines[i] = ("%d %s %s [%s]"):format(item.line, item.level, item.text, item.rule)
  end
  return #lines > 0 and table.concat(lines, "\n") or "nothing"
end

local function has(items, level, rule, text)
  for _, item in ipairs(items) do
    if item.level == level and item.rule == rule and item.text:find(text, 1, true) then
      assert.is_true(item.line > 0)
      return
    end
  end
  error(("no %s [%s] with '%s' among:\n%s"):format(level, rule, text, shown(items)), 2)
end

local function clean(items)
  assert.equal("nothing", shown(items))
end

local function only(items, level, rule, text)
  has(items, level, rule, text)
  assert.equal(1, #items, shown(items))
end

describe("a good flow", function()
  it("has no findings", function()
    clean(of [[
      ask("a", { save_as = "name", next_steps = { "b" } }),
      say("b", { response = "{name} {currency} {user_id} {config.currency} {nick|none}",
        next_steps = { "z" } }),
      say("z", {}) ]])
  end)

  it("is what is shipped", function()
    local files = {}
    for _, path in ipairs { "init.lua", "agents.lua", "answers.lua", "flow.lua" } do
      local file = assert(io.open("scripts/customer_service/" .. path))
      files[path] = file:read "a"
      file:close()
    end
    clean(findings_of("customer_service", files))
  end)
end)

describe("names", function()
  it("that nothing sets are errors in templates, with the nearest that is set", function()
    only(of [[
      ask("a", { save_as = "order_id", next_steps = { "z" } }),
      say("z", { response = "Order {order_di}." }) ]],
      "error", "templates", "{order_di}, which nothing sets; did you mean 'order_id'?")
  end)

  it("are only suspicious where Lua code may set them", function()
    only(of [[
      S { step_id = "a", step_type = "action", run = function(ctx) ctx.state.x = 1 end,
        next_steps = { "z" } },
      say("z", { response = "{x}" }) ]], "warning", "templates", "{x}, which nothing sets")
  end)

  it("that are not set on every way are reported with the way", function()
    only(of [[
      ask("a", { input_schema = { type = "boolean", required = true }, save_as = "wants",
        next_steps = { "b", "z" }, conditional_logic = { condition = "wants", ["true"] = "b",
        ["false"] = "z" } }),
      ask("b", { save_as = "size", next_steps = { "z" } }),
      say("z", { response = "{size}" }) ]],
      "warning", "templates", "{size}, which nothing sets on the way a, z")
  end)

  it("are set by variables, and by every field of a structured answer", function()
    clean(of([[
      ask("a", { prompt = "{greeting}", metadata = { data_collection = { "order" } },
        input_schema = { type = "structured", fields = { { name = "size", type = "text" } } },
        next_steps = { "z" } }),
      say("z", { response = "{size} {order}" }) ]], [[{ greeting = "Hi" }]]))
  end)

  it("of required_context are looked for too", function()
    only(of [[ say("a", { metadata = { required_context = { "x" } }, next_steps = { "z" } }),
      say("z", {}) ]], "error", "context", "asks for 'x', which nothing sets")
  end)

  it("of conditions must be set, unless the agent chooses", function()
    local steps = [[ say("a", { next_steps = { "z" }, %s conditional_logic = { %s
      yes = "z", default = "z" } }), say("z", {}) ]]
    only(of(steps:format("", [[condition = "mood",]])), "error", "conditions", "'mood'")
    clean(of(steps:format([[outcome = "yes",]], [[condition = "mood", classify = true,]])))
  end)

  it("that are declared and never used are reported", function()
    only(of([[ say("a", { next_steps = { "z" } }), say("z", {}) ]], [[{ left_over = 1 }]]),
      "warning", "variables", "'left_over'")
  end)
end)

describe("branches", function()
  local steps = [[
    ask("a", { save_as = "c", next_steps = { "b", "z" }, input_schema = { type = "choice", %s
      options = { { label = "Yes", value = "y" }, { label = "No", value = "n" } } },
      conditional_logic = { condition = "c", %s } }),
    say("b", { next_steps = { "z" } }), say("z", {}) ]]
  local required = "required = true,"

  it("must be values of the options", function()
    has(of(steps:format(required, [[yes = "b", n = "z", default = "z"]])), "error", "branches",
      "the outcome 'yes' never happens: no option has it as value; the values are 'n', 'y'")
  end)

  it("must cover every value or have a default", function()
    has(of(steps:format(required, [[y = "b"]])), "error", "branches", "no step is given for 'n'")
    clean(of(steps:format(required, [[y = "b", n = "z"]])))
  end)

  it("need a default where other answers are possible", function()
    local custom = required .. " allow_custom_response = true,"
    only(of(steps:format(custom, [[y = "b", n = "z"]])), "error", "branches",
      "no step is given for 'custom'")
    clean(of(steps:format(custom, [[y = "b", n = "z", custom = "z", default = "z"]])))
    only(of(steps:format("", [[y = "b", n = "z"]])), "warning", "branches", "no default")
  end)

  it("are known when an earlier choice set the name", function()
    local later = [[
      ask("a", { save_as = "c", next_steps = { "b" }, input_schema = { type = "choice",
        required = true, options = { "y", "n" } } }),
      say("b", { next_steps = { "z" }, conditional_logic = { condition = "c", %s } }),
      say("z", {}) ]]
    clean(of(later:format [[y = "z", n = "z"]]))
    only(of(later:format [[y = "z"]]), "error", "branches", "no step is given for 'n'")
    has(of(later:format [[y = "z", n = "z", custom = "z"]]), "error", "branches", "'custom'")
  end)

  it("of functions and agents need a default", function()
    local steps_of = [[ %s, say("z", {}) ]]
    only(of(steps_of:format [[S { step_id = "a", step_type = "decision",
      condition = function() return "y" end, next_steps = { "z" },
      conditional_logic = { y = "z" } }]]), "warning", "branches", "no default")
    clean(of(steps_of:format [[S { step_id = "a", step_type = "decision",
      condition = function() return "z" end, next_steps = { "z" } }]]))
  end)

  it("of an approval are both needed", function()
    local gate = [[S { step_id = "a", step_type = "approval", prompt = "?", role = "boss",
      next_steps = { "z" }, conditional_logic = { approved = "z", %s } }, say("z", {})]]
    clean(of(gate:format [[rejected = "z"]]))
    clean(of(gate:format [[default = "z"]]))
    only(of(gate:format ""), "error", "branches", "no step is given for 'rejected'")
  end)

  it("of an approval are needed where a rejection would go on as an approval does", function()
    local function gate(more, following)
      return of(([[S { step_id = "a", step_type = "approval", prompt = "?", role = "boss", %s
        next_steps = { "%s" } }, %s say("z", {})]]):format(more, following and "b" or "z",
        following or ""))
    end
    local look = [[S { step_id = "b", step_type = "decision", next_steps = { "z" },
      condition = function(ctx) return ctx.state.said.approved and "z" end },]]
    only(gate "", "error", "branches", "'z' follows a rejection as it does an approval")
    only(gate('save_as = "said",'), "warning", "branches", "'z' follows a rejection")
    clean(gate('save_as = "said",', look))
    clean(of [[say("a", { next_steps = { "z" } }),
      S { step_id = "z", step_type = "approval", prompt = "?", role = "boss" }]])
  end)

  it("of a wait are the event and its timeout, where it can have them", function()
    local wait = [[S { step_id = "a", step_type = "wait", %s next_steps = { "z" },
      conditional_logic = { %s } }, say("z", {})]]
    clean(of(wait:format('event = "paid", timeout = 60,', [[event = "z", timeout = "z"]])))
    clean(of(wait:format('event = "paid", timeout = 60,', [[event = "z", default = "z"]])))
    clean(of(wait:format('event = "paid",', [[event = "z"]])))
    clean(of(wait:format("seconds = 60,", [[timeout = "z"]])))
    only(of(wait:format('event = "paid", timeout = 60,', [[event = "z"]])), "error", "branches",
      "no step is given for 'timeout'")
    only(of(wait:format("seconds = 60,", [[event = "z"]])), "error", "branches",
      "no step is given for 'timeout'")
  end)
end)

describe("compensation", function()
  it("needs something to undo", function()
    local function with(undo)
      local steps = [[ S { step_id = "a", step_type = "action", run = function() end,
        next_steps = { "z" }, ]] .. undo .. [[ }, say("z", {}) ]]
      local text = FLOW:format("{}", steps):gsub("flow_id = \"f\",",
        "%0 compensate_on_failure = true,")
      local kept = {}
      for _, item in ipairs(findings_of("it", { ["init.lua"] = text })) do
        if item.rule ~= "agents" then kept[#kept + 1] = item end
      end
      return kept
    end
    only(with "", "warning", "compensation", "no step has an 'undo'")
    clean(with "undo = function() end")
  end)
end)

describe("a review", function()
  it("needs rules without a model, and uses its agent", function()
    local steps = [[ say("a", { next_steps = { "z" }, review = %s }), say("z", {}) ]]
    only(of(steps:format "two"), "warning", "offline", "without a model 'two' lets nothing pass")
    clean(of(steps:format [[{ agent = two, outcome = "pass" }]]))
    only(of(steps:format [[{ agent = two, outcome = "pass", response = "{why}" }]]), "error",
      "templates", "'response of review' names {why}, which nothing sets")
    local items = findings_of("it", { ["init.lua"] = FLOW:format("{}",
      steps:format [[{ agent = two, outcome = "pass" }]]) })
    assert.same({}, items)
  end)
end)

describe("ways", function()
  it("must lead to every step", function()
    only(of [[ say("a", { next_steps = { "z" } }), say("b", { next_steps = { "z" } }),
      say("z", {}) ]], "warning", "unreachable", "step 'b'")
  end)

  it("to a step only by on_error count", function()
    clean(of [[ say("a", { next_steps = { "z" }, on_error = "b" }),
      say("b", { next_steps = { "z" } }), say("z", {}) ]])
  end)

  it("must lead to an end", function()
    local items = of [[ say("a", { next_steps = { "b" } }), ask("b", { next_steps = { "a" } }),
      say("z", {}) ]]
    has(items, "error", "no_end", "step 'a'")
    has(items, "error", "no_end", "step 'b'")
    has(items, "warning", "unreachable", "step 'z'")
  end)

  it("that are never taken are reported", function()
    has(of [[ say("a", { next_steps = { "z", "b" } }), say("b", { next_steps = { "z" } }),
      say("z", {}) ]], "warning", "targets", "lists 'b', but without conditional_logic")
    has(of [[ say("a", { next_steps = { "z", "b" }, outcome = "y",
      conditional_logic = { classify = true, y = "z", default = "z" } }),
      say("b", { next_steps = { "z" } }), say("z", {}) ]],
      "warning", "targets", "no outcome of conditional_logic leads there")
  end)

  it("are not flows that a branch goes to, which are no successors", function()
    only(of [[ say("a", { next_steps = { "z", "flow:f" }, outcome = "y",
      conditional_logic = { classify = true, y = "flow:f", default = "z" } }), say("z", {}) ]],
      "error", "targets", "next_steps: 'flow:f' is for branches only")
  end)

  it("do not go on from an end step", function()
    only(of [[ say("a", { next_steps = { "z" } }), say("z", { next_steps = { "end" } }) ]],
      "warning", "ends", "never goes on to 'end'")
  end)
end)

describe("labels", function()
  local function labelled(label, more)
    return of(([[ say("a", { metadata = { %s = true }, next_steps = { "z" }, %s }),
      say("z", {}) ]]):format(label, more or ""))
  end

  it("must be true of the flow", function()
    only(labelled "decision_point", "error", "metadata", "decision_point")
    only(labelled "requires_specialist", "error", "metadata", "flow's first one")
    only(labelled "potential_loop_back", "error", "metadata", "leads back")
    only(labelled "allows_multiple_iterations", "error", "metadata", "on no cycle")
  end)

  it("are fine when they are", function()
    clean(of [[
      say("a", { next_steps = { "b" } }),
      ask("b", { save_as = "more", next_steps = { "c" },
        metadata = { allows_multiple_iterations = true },
        input_schema = { type = "boolean", required = true } }),
      say("c", { agent = two, next_steps = { "b", "z" }, metadata = { decision_point = true,
        potential_loop_back = true, requires_specialist = true },
        conditional_logic = { condition = "more", ["true"] = "b", ["false"] = "z" } }),
      say("z", {}) ]])
  end)
end)

describe("agents", function()
  it("that no step uses are reported", function()
    local files = { ["init.lua"] = FLOW:format("{}", [[ say("a", { next_steps = { "z" } }),
      say("z", {}) ]]) }
    only(findings_of("it", files), "warning", "agents", "agent 'two': no step uses it")
  end)

  it("need something to say without a model", function()
    only(of [[ S { step_id = "a", step_type = "agent_response", agent = one, prompt = "Speak.",
      next_steps = { "z" } }, say("z", {}) ]], "warning", "offline", "no 'response'")
    only(of [[ say("a", { next_steps = { "z" }, conditional_logic = { classify = true, y = "z",
      default = "z" } }), say("z", {}) ]], "warning", "offline", "no 'outcome'")
  end)
end)

describe("what cannot be loaded", function()
  it("is reported with its place, and nothing is guessed about the rest", function()
    local items = findings_of("it", { ["init.lua"] = "local x = = 1" })
    only(items, "error", "script", "unexpected symbol")
    assert.equal("scripts/it/init.lua", items[1].file)
    only(of [[ say("a", { next_steps = { "b" } }),
      say("b", { next_stepz = { "z" }, next_steps = { "z" } }), say("z", {}) ]],
      "error", "fields", "next_stepz")
  end)

  it("is reported without what only follows from it", function()
    only(of [[ say("a", { next_steps = { "bb" } }), say("b", { next_steps = { "z" } }),
      say("z", {}) ]], "error", "targets", "there is no step 'bb'; did you mean 'b'?")
    only(of [[ say("a", { next_steps = { "z" }, on_error = "bb" }),
      say("b", { next_steps = { "z" } }), say("z", {}) ]], "error", "targets", "'bb'")
    local text = FLOW:format("{}", [[ say("a", { agent = "towo", next_steps = { "z" } }),
      say("z", {}) ]])
    only(findings_of("it", { ["init.lua"] = text }), "error", "agents", "did you mean 'two'?")
    only(findings_of("it", { ["init.lua"] = text:gsub('agent = "towo"', 'agnt = two') }), "error",
      "fields", "'agnt'; did you mean 'agent'?")
  end)
end)

describe("the guide's own mistakes", function()
  local function port(name)
    local file = assert(io.open("tests/fixtures/guide_port/" .. name .. "/init.lua"))
    local text = file:read "a"
    file:close()
    return findings_of(name, { ["init.lua"] = text })
  end

  it("are found in comprehensive_workflow", function()
    local items = port "comprehensive"
    has(items, "error", "targets", "'identify_need' is not among next_steps")
    for _, name in ipairs { "request_complexity", "satisfaction_level", "user_choice" } do
      has(items, "error", "conditions", "'" .. name .. "' is a name that nothing sets")
    end
    has(items, "error", "templates", "{dynamic_questions}")
    for _, key in ipairs { "more_questions", "something_else", "satisfied" } do
      has(items, "error", "branches", "'" .. key .. "' never happens")
    end
    has(items, "error", "branches", "no step is given for 'I have one more question'")
    has(items, "warning", "branches", "step 'analyze_request': conditional_logic has no default")
    has(items, "warning", "branches", "step 'handle_feedback': conditional_logic has no default")
    has(items, "warning", "ends", "step 'completion'")
    has(items, "warning", "agents", "'validator'")
  end)

  it("are found in customer_support", function()
    local items = port "ecommerce"
    for _, target in ipairs { "order_tracking_flow", "product_inquiry_flow", "returns_flow" } do
      has(items, "error", "targets", "there is no step '" .. target .. "'")
    end
    has(items, "error", "conditions", "'issue_type'")
    has(items, "error", "conditions", "'user_choice'")
    has(items, "error", "branches", "'another_question' never happens")
    has(items, "warning", "ends", "step 'completion'")
  end)
end)

describe("what functions keep", function()
  it("is found by what Lua knows of them", function()
    local closure = require "host.closure"
    local one, two = 1, "two"
    local line = debug.getinfo(1, "l").currentline + 1
    local function both()
      return one, two
    end
    local chunk, first, last = closure.place(both)
    assert.same({ "@tests/lua/check_spec.lua", line, line + 2 }, { chunk, first, last })
    assert.same({ "one", 1 }, { closure.upvalue(both, 1) })
    assert.same({ "two", "two" }, { closure.upvalue(both, 2) })
    assert.is_nil((closure.upvalue(both, 3)))
    assert.is_nil((closure.place(print)))
    assert.is_false((pcall(closure.place, {})))
    assert.is_false((pcall(closure.upvalue, both, 0)))
  end)

  local function kept(head, run, files)
    files = files or {}
    files["init.lua"] = head .. [[

      local tm = require "tidemill"
      local step = tm.ConversationStep { step_id = "a", step_type = "action",
        run = ]] .. run .. [[ }
      return tm.system { agents = {}, flows = { tm.ConversationFlow {
        flow_id = "f", start_step = "a", end_steps = { "a" }, steps = { step } } } }]]
    return findings_of("it", files)
  end

  it("outlives the turn: a local of the file, by the line that writes it", function()
    local items = kept("\239\187\191local n = 0\r\nlocal function count()\n"
      .. "  n = n + 1\n  return n\nend",
      "function(ctx) ctx.state.n = count() end")
    only(items, "warning", "kept", "writes 'n'")
    assert.equal(3, items[1].line)
    assert.equal("scripts/it/init.lua", items[1].file)
  end)

  it("is found through modules, tables, and functions that make functions", function()
    local items = kept("local m = require 'm'", "m.steps[1].count", { ["m.lua"] = [[
      local function counter()
        local n = 0
        return function(ctx)
          local function up() n = n + 1 end
          up()
          ctx.state.n = n
        end
      end
      return { steps = { { count = counter() } } } ]] })
    only(items, "warning", "kept", "writes 'n'")
    assert.equal(4, items[1].line)
    assert.equal("scripts/it/m.lua", items[1].file)
  end)

  it("is nothing where only what loads the system writes", function()
    clean(kept("local n = 0\nlocal function name() n = n + 1 return 'x' .. n end\n"
      .. "local names = { name(), name() }", "function(ctx) ctx.state.names = #names end"))
  end)

  it("is nothing that ends with the call", function()
    clean(kept("", [[function(ctx)
      local sum, text = 0, ""
      local function add(n) sum = sum + n; text = text .. n end
      for i = 1, 3 do add(i) end
      ctx.state.sum, ctx.state.text = sum, text
    end]]))
  end)

  it("is told once, and of functions on one line only if each writes", function()
    only(kept("local n = 0", "function(ctx) n = 1; ctx.state.n = n end"), "warning", "kept", "'n'")
    clean(kept("local n = 0 local f, g = function() n = 1 end, function() return n end",
      "function(ctx) ctx.state.n = g() end"))
  end)

  it("is read in every way of writing Lua", function()
    local items = kept([==[
local a, b, c, d, e = 1, 2, 3, 4, 5 --[[ a = 1 ]] -- b = 2
local function all(t)
  local text = "b = 2" .. 'c = "3"' .. [[d = 4]] .. 0x1p-4 .. 1e-3 .. "\z
     \" e = 5"
  for i, b in ipairs(t) do b = i end
  for c = 1, 2 do c = c + 1 end
  repeat local d = 1; d = d + 1 until d > 1
  while false do goto done end
  ::done::
  if not t then a, t.x = 1, { b = 1, [c] = 2; e } elseif t then t.a = 1 else t:a { b = 1 } end
  local x <const>, y = 1, -2 ~ 3 // 4
  return text .. x .. y, (function(...) return ... end)(1)
end]==], "function(ctx) ctx.state.x = all {} end")
    only(items, "warning", "kept", "writes 'a'")
    assert.equal(10, items[1].line)
  end)
end)
