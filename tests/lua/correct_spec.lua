-- The command `correct`: another answer to an earlier question, and only what depended on it again.
local Host = require "tests.lua.fake_host"
local task = require "tidemill.task"

local host

local function load_flow(steps, flow, before, config)
  config = config or {}
  config.webhooks = true
  host = Host.new(Host.script(steps, flow, before), config)
  host:load()
  host.outside = function(request)
    return { status = 200, headers = { ["content-type"] = "application/json" },
      body = request.body or "{}" }
  end
  return host
end

local function correct(name, input, stop)
  return host:signal("command", { command = "correct", name = name, input = input }, stop)
end

local function asked()
  local list = {}
  for i, request in ipairs(host.requests) do list[i] = request.url:match("h(/.*)$") end
  host.requests = {}
  return table.concat(list, " ")
end

local function again(turn)
  local ids = {}
  for i, step in ipairs(turn.steps) do ids[i] = step.step_id end
  return table.concat(ids, " ")
end

local function fail_times(path, failures)
  local answers = host.outside
  host.outside = function(request)
    if request.url:find(path, 1, true) and failures > 0 then
      failures = failures - 1
      return { status = 200, headers = {}, body = "no JSON" }
    end
    return answers(request)
  end
end

after_each(function() assert.equal(0, task.count(), "a task was left behind") end)

local BEFORE = [[
local function post(path, name)
  return function(ctx)
    return ctx:http { method = "POST", url = "http://h" .. path,
      json = { value = ctx.state[name], seq = ctx.step.seq } }.json.value
  end
end]]

-- Two answers; what depends on the one, on the other, and on nothing.
local ORDER = [[
  ConversationStep { step_id = "ask_name", step_type = "user_input", prompt = "Name?",
    input_schema = { type = "text", min_length = 2, required = true }, save_as = "name",
    next_steps = { "ask_amount" } },
  ConversationStep { step_id = "ask_amount", step_type = "user_input", prompt = "How many?",
    input_schema = { type = "integer", min = 1 }, save_as = "amount", next_steps = { "total" } },
  ConversationStep { step_id = "total", step_type = "action", save_as = "total",
    run = function(ctx) ctx:log("total") return ctx.state.amount * 3 end,
    next_steps = { "reserve" } },
  ConversationStep { step_id = "reserve", step_type = "action", save_as = "reserved",
    run = post("/reserve", "total"), undo = UNDO, max_retries = 1, next_steps = { "look" } },
  ConversationStep { step_id = "look", step_type = "action", save_as = "customer",
    run = post("/look", "name"), irreversible = LOOK, next_steps = { "tell" } },
  ConversationStep { step_id = "tell", step_type = "agent_response", agent = "clerk", prompt = "x",
    response = "{total} for {customer}.", next_steps = { "note" } },
  ConversationStep { step_id = "note", step_type = "user_input", prompt = "Note on {amount}?",
    input_schema = { type = "text" }, save_as = "note", next_steps = { "last" } },
  ConversationStep { step_id = "last", step_type = "user_input", prompt = "Sure, {name}?",
    input_schema = { type = "text" }, next_steps = { "end" } },]]

local function order(look, undo, config)
  local steps = ORDER:gsub("LOOK", look or "false")
    :gsub("UNDO", undo or 'function(ctx, out) ctx:http { url = "http://h/release/" .. out } end')
  load_flow(steps, 'start_step = "ask_name",', BEFORE, config)
  host:start()
  host:send "Ada"
  host:send "2"
  host:send "quick"
  assert.equal("/reserve /look", asked())
end

describe("correct", function()
  it("runs again what reads the answer, and what reads that, and nothing else", function()
    order()
    local logs = #host.logs
    local turn = correct("amount", "5")
    assert.same({ "waiting_input", "last", "Sure, Ada?" },
      { turn.status, turn.step, turn.prompt.text })
    assert.same({ name = "Ada", amount = 5, total = 15, reserved = 15, customer = "Ada",
      note = "quick" }, turn.state)
    assert.equal("/release/6 /reserve", asked())
    assert.equal("reserve tell", again(turn))
    assert.equal("15 for Ada.", turn.messages[1].text)
    assert.equal(logs + 1, #host.logs, "only what runs again logs")
    assert.is_nil(turn.runtime.correct)
    assert.equal(1, turn.runtime.wait.shown)
    assert.equal("completed", host:send("yes").status)
  end)

  it("leaves records that say which execution each one stands for", function()
    order()
    correct("amount", "5")
    local steps, seen = host:all "steps", {}
    for i = 8, #steps do
      local step = steps[i]
      seen[#seen + 1] = ("%s %s"):format(step.step_id,
        step.undoes and "undoes " .. step.undoes or "for " .. step.corrects)
    end
    assert.same({ "reserve undoes 4", "ask_amount for 2", "total for 3", "reserve for 4",
      "tell for 6" }, seen)
  end)

  it("keeps calls that did not depend, whether or not they can be taken back", function()
    order("nil")
    correct("amount", "5")
    assert.equal("/release/6 /reserve", asked())
    order("true")
    correct("amount", "5")
    assert.equal("/release/6 /reserve", asked())
  end)

  it("is refused by the names of what depended and cannot be taken back", function()
    for _, look in ipairs { "nil", "true" } do
      order(look)
      local rows = #host.rows
      local turn = correct("name", "Bob")
      assert.same({ "fail", "rollback.irreversible", "conflict" },
        { turn.kind, turn.error.code, turn.error.status })
      assert.matches("cannot be taken back: look;", turn.error.message, 1, true)
      assert.equal(rows, #host.rows)
      assert.equal("", asked())
    end
    order()
    assert.equal("Bob", correct("name", "Bob").state.customer)
    assert.equal("/look", asked())
  end)

  it("stops where a value comes out as it was", function()
    load_flow([[
      ConversationStep { step_id = "a", step_type = "user_input", prompt = "A?", save_as = "a",
        input_schema = { type = "integer" }, next_steps = { "sign" } },
      ConversationStep { step_id = "sign", step_type = "action", save_as = "sign",
        run = function(ctx) return ctx.state.a > 0 end, next_steps = { "pay" } },
      ConversationStep { step_id = "pay", step_type = "action", irreversible = true,
        run = post("/pay", "sign"), next_steps = { "b" } },
      ConversationStep { step_id = "b", step_type = "user_input", prompt = "B?",
        input_schema = { type = "text" }, next_steps = { "end" } },]], 'start_step = "a",', BEFORE)
    host:start()
    host:send "1"
    asked()
    assert.equal("a sign", again(correct("a", "7")))
    assert.equal("", asked())
    assert.equal("rollback.irreversible", correct("a", "-7").error.code)
  end)

  it("takes the answer by the step's id, too, and can be done again and again", function()
    order()
    correct("ask_amount", "5")
    correct("name", "Bob")
    local turn = correct("amount", "4")
    assert.equal("/release/6 /reserve /look /release/15 /reserve", asked())
    assert.same({ name = "Bob", amount = 4, total = 12, reserved = 12, customer = "Bob",
      note = "quick" }, turn.state)
    assert.equal("Sure, Bob?", turn.prompt.text)
    turn = correct("amount", "4")
    assert.equal("ask_amount", again(turn))
    assert.equal("", asked())
  end)

  it("goes over steps that send, tell, keep or return the whole state, also in a table", function()
    local bodies = {
      'ctx:emit("told", ctx.state)', 'ctx:emit("told", { all = ctx.state })',
      'ctx:emit("told", { { ctx.state, ctx.state } })',
      'ctx:http { url = "http://h/send", method = "POST", json = ctx.state }',
      'ctx:http { url = "http://h/send", method = "POST", json = { all = ctx.state } }',
      'ctx:once("all", function() return { all = ctx.state } end)', "return ctx.state",
      "return { all = ctx.state }", "ctx.state = { was = ctx.state, a = ctx.state.a }",
    }
    for _, body in ipairs(bodies) do
      load_flow(([[
        ConversationStep { step_id = "a", step_type = "user_input", prompt = "A?", save_as = "a",
          input_schema = { type = "text" }, next_steps = { "send" } },
        ConversationStep { step_id = "send", step_type = "action", irreversible = false,
          run = function(ctx) %s end, next_steps = { "last" } },
        ConversationStep { step_id = "last", step_type = "user_input", prompt = "{a}?",
          input_schema = { type = "text" }, next_steps = { "end" } },]]):format(body),
        'start_step = "a",', BEFORE)
      host:start()
      host:send "x"
      local turn = correct("a", "y")
      assert.same({ "last", "y?" }, { turn.step, turn.prompt and turn.prompt.text }, body)
      assert.matches("send$", again(turn), 1, body)
      for _, request in ipairs(host.requests) do assert.matches("/send", request.url) end
      assert.is_true(#host.requests == 0 or #host.requests == 2, body)
      assert.equal(body:find "was" and "y" or nil, turn.state.was and turn.state.was.a)
    end
  end)

  it("checks the answer as its step does, and says at the prompt why it is refused", function()
    order()
    local rows = #host.rows
    for given, reason in pairs { none = "whole number", ["0"] = "at least 1" } do
      local turn = correct("amount", given)
      assert.same({ "last", 2 }, { turn.step, turn.state.amount })
      assert.matches("'amount' stays as it was.", turn.prompt.hint, 1, true)
      assert.matches(reason, turn.prompt.hint, 1, true)
      assert.same({}, turn.steps)
      assert.is_true(turn.runtime.wait.shown > 1) -- the same prompt: *back* goes to the one before
    end
    assert.equal(rows + 2, #host.rows)
    assert.equal("", asked())
    assert.is_nil(host:send("yes").prompt)
  end)

  it("is refused for what nobody was asked, or has not answered yet", function()
    order()
    assert.matches("no answer 'colour'", correct("colour", "x").error.message, 1, true)
    assert.equal("command.refused", correct("colour", "x").error.code)
    local turn = correct("last", "x")
    assert.equal("trail", turn.kind) -- the host finds none
  end)
end)

describe("a correction of a form", function()
  local FORM = [[
    ConversationStep { step_id = "form", step_type = "user_input", prompt = "Form?",
      input_schema = { type = "structured", fields = { { name = "street", type = "text" },
        { name = "zip", type = "integer", required = true } },
        validate = function(value) return value.zip ~= 13, "No thirteen." end },
      save_as = "home", next_steps = { "show" } },
    ConversationStep { step_id = "show", step_type = "action", save_as = "label",
      run = function(ctx) return ctx.state.home.street .. ctx.state.home.zip end,
      next_steps = { "b" } },
    ConversationStep { step_id = "b", step_type = "user_input", prompt = "{label}?",
      input_schema = { type = "text" }, next_steps = { "end" } },]]

  it("changes one field, or all of them", function()
    load_flow(FORM, 'start_step = "form",')
    host:start()
    host:send { street = "Elm", zip = 12 }
    assert.equal("Elm14?", correct("zip", "14").prompt.text)
    assert.equal("Oak14?", correct("street", "Oak").prompt.text)
    assert.equal("Ash15?", correct("home", { street = "Ash", zip = 15 }).prompt.text)
    assert.matches("No thirteen", correct("zip", "13").prompt.hint, 1, true)
    assert.matches("not complete", correct("home", "Ash").prompt.hint, 1, true)
    assert.same({ street = "Ash", zip = 15 }, host.record.state.home)
  end)
end)

describe("a correction that changes the way", function()
  local WAY = [[
    ConversationStep { step_id = "size", step_type = "user_input", prompt = "Size?",
      input_schema = { type = "integer" }, save_as = "size", next_steps = { "which" } },
    ConversationStep { step_id = "which", step_type = "decision", next_steps = { "crane", "box" },
      conditional_logic = { condition = function(ctx) return ctx.state.size > 9 and "big" or "small"
        end, big = "crane", small = "box" } },
    ConversationStep { step_id = "box", step_type = "action", save_as = "box",
      run = post("/box", "size"), UNDO next_steps = { "colour" } },
    ConversationStep { step_id = "crane", step_type = "action", save_as = "crane",
      run = post("/crane", "size"), next_steps = { "date" } },
    ConversationStep { step_id = "colour", step_type = "user_input", prompt = "Colour?",
      input_schema = { type = "text" }, save_as = "colour", next_steps = { "paint" } },
    ConversationStep { step_id = "paint", step_type = "action", save_as = "paint",
      run = post("/paint", "colour"), undo = function(ctx) ctx:http { url = "http://h/strip" } end,
      next_steps = { "last" } },
    ConversationStep { step_id = "date", step_type = "user_input", prompt = "When?",
      input_schema = { type = "text" }, save_as = "date", next_steps = { "last" } },
    ConversationStep { step_id = "last", step_type = "user_input", prompt = "Sure?",
      input_schema = { type = "text" }, next_steps = { "end" } },]]

  local function begin(undo)
    undo = undo or 'undo = function(ctx) ctx:http { url = "http://h/unbox" } end,'
    load_flow((WAY:gsub("UNDO", undo)), 'start_step = "size",', BEFORE)
    host:start()
    host:send "3"
    host:send "red"
    asked()
  end

  it("undoes what was on the old one, and goes on on the new one", function()
    begin()
    local turn = correct("size", "20")
    assert.equal("/strip /unbox /crane", asked())
    assert.same({ "date", { size = 20, crane = 20 } }, { turn.step, turn.state })
    turn = host:send "Monday"
    assert.equal("last", turn.step)
    assert.same({ size = 20, crane = 20, date = "Monday" }, turn.state)
    turn = correct("date", "Friday")
    assert.same({ size = 20, crane = 20, date = "Friday" }, turn.state)
    assert.equal("", asked())
    assert.equal("command.refused", correct("colour", "blue").error.code)
  end)

  it("stays on it where the decision comes out as it did", function()
    begin()
    local turn = correct("size", "4")
    assert.equal("/unbox /box", asked())
    assert.same({ "last", { size = 4, box = 4, colour = "red", paint = "red" } },
      { turn.step, turn.state })
  end)

  it("takes back nothing for an answer that was refused first", function()
    load_flow((WAY:gsub("UNDO", "irreversible = false,"):gsub('"Colour%?",',
      '%0 on_no_match = { "What?" },'):gsub('{ type = "text" }, save_as = "colour"',
      '{ type = "text", min_length = 2 }, save_as = "colour"')), 'start_step = "size",', BEFORE)
    host:start()
    host:send "3"
    host:send "r"
    host:send "red"
    asked()
    assert.equal("date", correct("size", "20").step)
    assert.equal("/strip /crane", asked())
  end)

  it("is refused when something on the old one cannot be taken back", function()
    begin ""
    assert.matches("taken back: box;", correct("size", "20").error.message, 1, true)
    assert.equal("", asked())
  end)

  it("asks anew where a later answer is not accepted any more", function()
    load_flow([[
      ConversationStep { step_id = "most", step_type = "user_input", prompt = "Most?",
        input_schema = { type = "integer" }, save_as = "most", next_steps = { "count" } },
      ConversationStep { step_id = "count", step_type = "user_input", prompt = "Of {most}?",
        input_schema = { type = "integer", validate = function(value, ctx)
          return value <= ctx.state.most, "Too many." end }, save_as = "count",
        next_steps = { "last" } },
      ConversationStep { step_id = "last", step_type = "user_input", prompt = "Sure?",
        input_schema = { type = "text" }, next_steps = { "end" } },]], 'start_step = "most",')
    host:start()
    host:send "9"
    host:send "5"
    assert.equal("last", correct("most", "6").step)
    local turn = correct("most", "4")
    assert.same({ "count", "Of 4?", { most = 4 } }, { turn.step, turn.prompt.text, turn.state })
    turn = host:send "3"
    assert.same({ "last", { most = 4, count = 3 } }, { turn.step, turn.state })
    assert.same({ most = 4, count = 2 }, correct("count", "2").state)
  end)
end)

describe("a confirmation", function()
  local function begin(charge, kind)
    load_flow((([[
      ConversationStep { step_id = "amount", step_type = "user_input", prompt = "How many?",
        input_schema = { type = "integer" }, save_as = "amount", next_steps = { "total" } },
      ConversationStep { step_id = "total", step_type = "action", save_as = "total",
        run = function(ctx) return math.min(ctx.state.amount, 9) end, next_steps = { "ok" } },
      ConversationStep { step_id = "ok", step_type = "user_input", prompt = "Charge {total}?",
        input_schema = { KIND }, save_as = "ok", next_steps = { "charge" } },
      ConversationStep { step_id = "charge", step_type = "action", run = post("/charge", "ok"),
        CHARGE next_steps = { "last" } },
      ConversationStep { step_id = "last", step_type = "user_input", prompt = "Sure?",
        input_schema = { type = "text" }, next_steps = { "end" } },]]):gsub("CHARGE", charge)
        :gsub("KIND", kind)), 'start_step = "amount",', BEFORE)
    host:start()
    host:send "2"
    host:send "yes"
    asked()
  end
  local BOOLEAN = 'type = "boolean"'
  local REFUND = 'undo = function(ctx) ctx:http { url = "http://h/refund" } end,'

  it("is asked for anew where something else is to be confirmed", function()
    for _, kind in ipairs { BOOLEAN, 'type = "choice", options = { "yes", "no" }' } do
      begin(REFUND, kind)
      local turn = correct("amount", "5")
      assert.same({ "ok", "Charge 5?", { amount = 5, total = 5 } },
        { turn.step, turn.prompt.text, turn.state })
      assert.equal("/refund", asked())
      turn = host:send "yes"
      assert.same({ "last", "/charge" }, { turn.step, asked() })
      assert.equal("ok", correct("amount", "6").step)
    end
  end)

  it("is kept where it asked for the same", function()
    begin(REFUND, BOOLEAN)
    correct("amount", "20")
    host:send "yes"
    asked()
    local turn = correct("amount", "30")
    assert.same({ "last", { 30, 9 } }, { turn.step, { turn.state.amount, turn.state.total } })
    assert.equal("", asked())
  end)

  it("is what nothing that cannot be taken back may depend on", function()
    begin("", BOOLEAN)
    assert.matches("cannot be taken back: charge;", correct("amount", "5").error.message, 1, true)
    assert.equal("", asked())
  end)
end)

describe("what a step looks at", function()
  local function run_with(body, undo)
    load_flow(([[
      ConversationStep { step_id = "a", step_type = "user_input", prompt = "A?", save_as = "a",
        input_schema = { type = "text" }, next_steps = { "b" } },
      ConversationStep { step_id = "b", step_type = "user_input", prompt = "B?", save_as = "b",
        input_schema = { type = "text" }, next_steps = { "work" } },
      ConversationStep { step_id = "work", step_type = "action", save_as = "out",
        run = function(ctx) %s end, undo = function() end, next_steps = { "last" } },
      ConversationStep { step_id = "last", step_type = "user_input", prompt = "{out}?",
        input_schema = { type = "text" }, next_steps = { "end" } },]]):format(body, undo),
      'start_step = "a", variables = { n = 0, list = {} },')
    host:start()
    host:send "x"
    host:send "y"
  end

  it("is a name, all names, the words of the user, or nothing", function()
    run_with "return ctx.state.b"
    assert.equal("a", again(correct("a", "z")))
    run_with "for name in pairs(ctx.state) do if name == 'q' then return name end end return 'none'"
    assert.equal("work a work", again(correct("a", "z")))
    run_with "return next(ctx.state) and 1"
    assert.equal("work a work", again(correct("a", "z")))
    run_with "return ctx.input"
    assert.equal("a", again(correct("a", "z")))
    local turn = correct("b", "w")
    assert.same({ "work b work", "w" }, { again(turn), turn.state.out })
    assert.equal("b", again(correct("b", "w")))
    run_with "ctx.state = { a = 1, b = 2 } return 7"
    assert.equal("work a work", again(correct("a", "z")))
    run_with "return ctx.config.a or ctx.session.user_id or 3"
    assert.equal("a", again(correct("a", "z")))
  end)

  it("is what was written before, and no name that is only written", function()
    run_with "ctx.state.n = ctx.state.n + 1 table.insert(ctx.state.list, ctx.state.a) return 1"
    local turn = correct("a", "z")
    assert.same({ n = 1, list = { "z" }, a = "z", b = "y", out = 1 }, turn.state)
    assert.same(turn.state, correct("b", "w").state.b == "w" and
      { n = 1, list = { "z" }, a = "z", b = "y", out = 1 })
    run_with "ctx.state.a = 'own' return 1"
    turn = correct("a", "z")
    assert.same({ "a", "own" }, { again(turn), turn.state.a })
  end)

  it("is seen inside ctx:once, too, although its result is recorded", function()
    local body = [[return ctx:once("pay", function()
      return ctx:http { method = "POST", url = "http://h/pay", json = { ctx.state.%s } }.json[1]
    end)]]
    run_with(body:format "b")
    assert.equal("/pay", asked())
    assert.equal("a", again(correct("a", "z")))
    assert.equal("", asked())
    assert.equal("w", correct("b", "w").state.out)
    assert.equal("/pay", asked())
    run_with 'return ctx:once("n", function() return ctx.state.a .. ctx:random(9) end)'
    assert.equal("b", again(correct("b", "w")))
    assert.matches("^z", correct("a", "z").state.out)
  end)

  it("is seen in what it tells the world, which is told again when it runs again", function()
    local function told(turn)
      local names = {}
      for i, event in ipairs(turn.events or {}) do names[i] = event.event end
      return again(turn) .. ": " .. table.concat(names, " ")
    end
    run_with 'ctx:emit("done", { b = ctx.state.b }) return 1'
    assert.equal("a: ", told(correct("a", "z")))
    assert.equal("work b work: done", told(correct("b", "w")))
  end)

  it("is the time of then, also where only the step keeps it", function()
    run_with "ctx.state.n = os.time() + ctx.now return os.date('%T')"
    local then_was = host.record.state.n
    host.now = host.now + 3600000
    local turn = correct("a", "z")
    assert.same({ "a", then_was }, { again(turn), turn.state.n })
    host.now = host.now + 3600000
    run_with "return os.time() .. ctx.state.a"
    host.now = host.now + 3600000
    assert.equal((host.now // 1000) .. "z", correct("a", "z").state.out)
  end)

  it("must end in the state that there is, or it is refused", function()
    run_with "ctx.state.n = rawget(ctx.state, 'n') or 7 return 1"
    local rows = #host.rows
    local turn = correct("a", "z")
    assert.same({ "fail", "command.refused" }, { turn.kind, turn.error and turn.error.code })
    assert.matches("the state does not come out again as it is: n", turn.error.message, 1, true)
    assert.equal(rows, #host.rows)
  end)

  it("must not change by itself: then nothing is known, and it is refused", function()
    run_with "return tostring(ctx):sub(-9) .. tostring({}) .. tostring(function() end)"
    local turn = correct("a", "z")
    assert.equal("command.refused", turn.error.code)
    assert.matches("'work' does not come out again", turn.error.message, 1, true)
  end)
end)

describe("a correction that is interrupted", function()
  it("lets others go first between the steps that it looks at, and before it begins", function()
    order()
    local pauses = 0
    correct("amount", "5", function(op)
      if op.kind == "timer" then pauses = pauses + 1 end
    end)
    assert.equal(6 + 5 + 1, pauses, "as it was, with the new answer, and before they run")
    assert.equal("/release/6 /reserve", asked())
  end)

  it("goes on in its midst, and calls nothing twice", function()
    for stop = 2, 6 do -- before it was begun there is nothing to go on with
      order()
      local seen = 0
      correct("amount", "5", function(op)
        if op.kind ~= "timer" then seen = seen + 1 end
        return seen == stop
      end)
      assert.is_nil(host.ended)
      host:crash()
      local turn = host:resume()
      assert.same({ "last", 15 }, { turn.step, turn.state.reserved }, stop)
      local calls = {}
      for _, request in ipairs(host.requests) do
        local key = request.headers["Idempotency-Key"]
        calls[key] = request.url
      end
      local count = 0
      for _ in pairs(calls) do count = count + 1 end
      assert.equal(2, count, stop)
      assert.equal("yes", host:send("yes").messages[1].text)
    end
  end)

  it("tries a step again that fails, from where it was", function()
    order()
    fail_times("/reserve", 1)
    local turn = correct("amount", "5")
    assert.same({ "suspend", "reserve" }, { turn.kind, turn.step })
    turn = host:resume()
    assert.same({ "last", 15, "quick" }, { turn.step, turn.state.reserved, turn.state.note })
    assert.equal("/release/6 /reserve /reserve", asked())
    assert.equal(12, correct("amount", "4").state.reserved)
  end)

  it("fails as any step does that has no attempt left", function()
    order()
    fail_times("/reserve", 9)
    correct("amount", "5")
    local turn = host:resume()
    assert.same({ "failed", "reserve" }, { turn.status, turn.error.step_id })
    assert.same({ nil, nil }, { turn.runtime.correct, turn.runtime.undone })
  end)

  it("leaves the answer when something cannot be undone, and says so", function()
    order("false", 'function() error("stuck") end')
    assert.equal("suspend", correct("amount", "5").kind)
    local turn = host:resume()
    assert.same({ "last", 2, 6 }, { turn.step, turn.state.amount, turn.state.reserved })
    assert.matches("the step 'reserve' could not be undone", turn.prompt.hint, 1, true)
    assert.same({ nil, nil }, { turn.runtime.correct, turn.runtime.undone })
    assert.equal("", asked())
    assert.equal("completed", host:send("yes").status)
  end)

  --- Two of them, whose effects depend on one answer.
  local function two(first)
    load_flow(([[
      ConversationStep { step_id = "a", step_type = "user_input", prompt = "A?", save_as = "a",
        input_schema = { type = "text" }, next_steps = { "one" } },
      ConversationStep { step_id = "one", step_type = "action", run = post("/one", "a"),
        save_as = "one", undo = function(ctx) %s end, max_retries = 0, next_steps = { "two" } },
      ConversationStep { step_id = "two", step_type = "action", run = post("/two", "a"),
        undo = function(ctx) ctx:http { url = "http://h/untwo" } end, save_as = "two",
        next_steps = { "last" } },
      ConversationStep { step_id = "last", step_type = "user_input", prompt = "{a}?",
        input_schema = { type = "text" }, next_steps = { "end" } },]]):format(first),
      'start_step = "a",', BEFORE)
    host:start()
    host:send "x"
    asked()
  end

  it("does again what was undone when another one could not be", function()
    two 'error("stuck")'
    local turn = correct("a", "y")
    assert.same({ "last", { a = "x", one = "x", two = "x" } }, { turn.step, turn.state })
    assert.equal("/untwo /two", asked())
    assert.matches("The answer stays as it was, for the step 'one' could not be undone",
      turn.prompt.hint, 1, true)
    assert.is_nil(turn.runtime.correct)
    turn = correct("a", "y")
    assert.same({ "last", "x" }, { turn.step, turn.state.a })
    assert.equal("/untwo /two", asked())
    assert.equal("completed", host:send("yes").status)
  end)

  it("does nothing again that only looked at what the user said", function()
    load_flow([[
      ConversationStep { step_id = "a", step_type = "user_input", prompt = "A?", save_as = "a",
        input_schema = { type = "text" }, next_steps = { "one" } },
      ConversationStep { step_id = "one", step_type = "action", run = post("/one", "a"),
        undo = function() error("stuck") end, max_retries = 0, next_steps = { "echo" } },
      ConversationStep { step_id = "echo", step_type = "action", save_as = "echo",
        run = function(ctx) return ctx.input end, next_steps = { "last" } },
      ConversationStep { step_id = "last", step_type = "user_input", prompt = "{echo}?",
        input_schema = { type = "text" }, next_steps = { "end" } },]], 'start_step = "a",', BEFORE)
    host:start()
    host:send "x"
    local turn = correct("a", "y")
    assert.matches("The answer stays as it was", turn.prompt.hint, 1, true)
    assert.same({ "one a", "x" }, { again(turn), turn.state.echo })
  end)

  it("runs what a rollback had undone before it failed again, and undoes it no more", function()
    two [[ctx:http { url = "http://h/unone" }]]
    host.undone = { host:all("steps")[3].seq }
    correct("a", "y")
    assert.equal("/unone /one /two", asked())
  end)

  it("does it again, too, when a limit stops the other one's undo", function()
    two 'ctx:http { url = "http://h/unone" }'
    correct("a", "y", function(op) return op.url == "http://h/unone" end)
    task.dispatch(host.turn_id, "failed", { code = "script.cpu", message = "too much" })
    host:pump()
    assert.same({ "last", { a = "x", one = "x", two = "x" } },
      { host.ended.step, host.ended.state })
    assert.equal("/untwo /unone /two", asked())
    assert.matches("could not be undone: .*too much", host.ended.prompt.hint)
  end)

  it("does it again after a crash, too", function()
    for stop = 2, 5 do
      two 'error("stuck")'
      local seen = 0
      correct("a", "y", function(op)
        if op.kind ~= "timer" then seen = seen + 1 end
        return seen == stop
      end)
      assert.is_nil(host.ended, stop)
      host:crash()
      local turn = host:resume()
      assert.same({ "last", { a = "x", one = "x", two = "x" } }, { turn.step, turn.state }, stop)
      assert.matches("The answer stays as it was", turn.prompt.hint, 1, true)
    end
  end)

  it("undoes what it could not foresee before that runs again", function()
    load_flow([[
      ConversationStep { step_id = "a", step_type = "user_input", prompt = "A?", save_as = "a",
        input_schema = { type = "text" }, next_steps = { "get" } },
      ConversationStep { step_id = "get", step_type = "action", irreversible = false,
        run = function(ctx)
          local found = ctx:http { method = "POST", url = "http://h/get", json = ctx.state.a }.json
          if found == "new" then ctx.state.found = found end
        end, next_steps = { "pay" } },
      ConversationStep { step_id = "pay", step_type = "action", run = post("/pay", "found"),
        undo = function(ctx) ctx:http { url = "http://h/repay" } end, next_steps = { "send" } },
      ConversationStep { step_id = "send", step_type = "action", run = post("/send", "nothing"),
        undo = function(ctx) ctx:http { url = "http://h/unsend" } end, next_steps = { "b" } },
      ConversationStep { step_id = "b", step_type = "user_input", prompt = "B?",
        input_schema = { type = "text" }, next_steps = { "end" } },]], 'start_step = "a",', BEFORE)
    host:start()
    host:send "old"
    asked()
    local turn = correct("a", "new")
    assert.same({ "b", { a = "new", found = "new" } }, { turn.step, turn.state })
    assert.equal("/get /unsend /repay /pay /send", asked())
    assert.equal("completed", host:send("yes").status)
  end)

  it("is refused where a step would fail with that answer", function()
    load_flow([[
      ConversationStep { step_id = "a", step_type = "user_input", prompt = "A?", save_as = "a",
        input_schema = { type = "integer" }, next_steps = { "check" } },
      ConversationStep { step_id = "check", step_type = "action", save_as = "half",
        run = function(ctx)
          if ctx.state.a > 9 then error("too much") end
          return ctx.state.a
        end, next_steps = { "pay" } },
      ConversationStep { step_id = "pay", step_type = "action", run = post("/pay", "a"),
        undo = function(ctx) ctx:http { url = "http://h/repay" } end, next_steps = { "b" } },
      ConversationStep { step_id = "b", step_type = "user_input", prompt = "B?",
        input_schema = { type = "text" }, next_steps = { "end" } },]], 'start_step = "a",', BEFORE)
    host:start()
    host:send "1"
    asked()
    local turn = correct("a", "10")
    assert.same({ "fail", "command.refused", "conflict" },
      { turn.kind, turn.error and turn.error.code, turn.error and turn.error.status })
    assert.matches("the step 'check' fails with that answer: .*too much", turn.error.message)
    assert.equal("", asked())
    assert.equal("b", correct("a", "9").step)
  end)

  it("stops at what it could not foresee, and does not do it twice", function()
    load_flow([[
      ConversationStep { step_id = "a", step_type = "user_input", prompt = "A?", save_as = "a",
        input_schema = { type = "text" }, next_steps = { "get" } },
      ConversationStep { step_id = "get", step_type = "action", irreversible = false,
        run = function(ctx)
          local found = ctx:http { method = "POST", url = "http://h/get", json = ctx.state.a }.json
          if found == "new" then ctx.state.found = found end
        end, next_steps = { "pay" } },
      ConversationStep { step_id = "pay", step_type = "action", run = post("/pay", "found"),
        next_steps = { "b" } },
      ConversationStep { step_id = "b", step_type = "user_input", prompt = "B?",
        input_schema = { type = "text" }, next_steps = { "end" } },]], 'start_step = "a",', BEFORE)
    host:start()
    host:send "old"
    assert.equal("/get /pay", asked())
    assert.equal("b", correct("a", "older").step)
    assert.equal("/get", asked())
    local turn = correct("a", "new")
    assert.same({ "failed", "rollback.irreversible", "pay" },
      { turn.status, turn.error.code, turn.error.step_id })
    assert.equal("/get", asked())
  end)
end)

describe("a correction whose step fails for good", function()
  local WITH_PAY = [[
    ConversationStep { step_id = "a", step_type = "user_input", prompt = "A?", save_as = "a",
      input_schema = { type = "text" }, next_steps = { "work" } },
    ConversationStep { step_id = "work", step_type = "action", max_retries = 0, save_as = "work",
      WORK next_steps = { "pay" } },
    ConversationStep { step_id = "pay", step_type = "action", run = post("/pay", "other"),
      PAY next_steps = { "last" } },
    ConversationStep { step_id = "last", step_type = "user_input", prompt = "Sure?",
      input_schema = { type = "text" }, next_steps = { "end" } },
    ConversationStep { step_id = "sorry", step_type = "user_input", prompt = "Sorry?",
      input_schema = { type = "text" }, next_steps = { "end" } },]]
  local UNDO = 'undo = function(ctx) ctx:http { url = "http://h/repay" } end,'
  local CALL = 'run = post("/work", "a"), irreversible = false,'

  local function begin(work, pay, settings, config)
    load_flow((WITH_PAY:gsub("WORK", work):gsub("PAY", pay)),
      ('start_step = "a", settings = { %s },'):format(settings or ""), "local n = 0\n" .. BEFORE,
      config)
    host:start()
    host:send "x"
    asked()
  end

  it("goes where its on_error leads, and takes back what was behind it", function()
    begin(CALL .. 'on_error = "sorry",', UNDO)
    fail_times("/work", 1)
    local turn = correct("a", "y")
    assert.same({ "waiting_input", "sorry", { a = "y" } }, { turn.status, turn.step, turn.state })
    assert.equal("/repay /work", asked())
    assert.equal("completed", host:send("well").status)
  end)

  it("is refused beforehand where others could wait at it, and go on to what was done", function()
    for settings, config in pairs { ["resume_on_failure = true"] = {},
      [""] = { auto_recovery = true } } do
      for _, pay in ipairs { "", "irreversible = true," } do
        begin(CALL, pay, settings, config)
        local turn = correct("a", "y")
        assert.same({ "fail", "rollback.irreversible", "conflict" },
          { turn.kind, turn.error.code, turn.error.status })
        assert.matches("cannot be taken back: pay;", turn.error.message, 1, true)
        assert.equal("", asked())
      end
    end
  end)

  it("waits at it with all behind it undone, and can be corrected again", function()
    begin(CALL, UNDO, "", { auto_recovery = true })
    fail_times("/work", 1)
    local turn = correct("a", "y")
    assert.same({ "waiting_input", "work", { a = "y" } }, { turn.status, turn.step, turn.state })
    assert.equal("/repay /work", asked())
    turn = host:send "again"
    assert.same({ "last", { a = "y", work = "y" } }, { turn.step, turn.state })
    assert.equal("/work /pay", asked())
    turn = correct("a", "z")
    assert.same({ "last", { a = "z", work = "z" } }, { turn.step, turn.state })
    assert.equal("/repay /work /pay", asked())
  end)

  it("ends the conversation where nobody could foresee that it fails", function()
    local work = [[run = function(ctx)
      n = n + 1
      if n > 3 then error("odd") end
      return ctx.state.a
    end,]]
    for settings, config in pairs { ["resume_on_failure = true"] = {},
      [""] = { auto_recovery = true } } do
      begin(work, "", settings, config)
      local turn = correct("a", "y")
      assert.same({ "failed", "work" }, { turn.status, turn.error and turn.error.step_id })
      assert.equal("", asked())
    end
    begin(work, "irreversible = false,", "", { auto_recovery = true })
    assert.equal("waiting_input", correct("a", "y").status)
  end)
end)

describe("a correction is refused", function()
  local FLOWS = [[
      steps = { ConversationStep { step_id = "a", step_type = "user_input", prompt = "A?",
          input_schema = { type = "text" }, save_as = "a", next_steps = { "ok" } },
        ConversationStep { step_id = "ok", step_type = "approval", role = "boss", prompt = "{a}?",
          next_steps = { "b" } },
        ConversationStep { step_id = "b", step_type = "user_input", prompt = "B?",
          input_schema = { type = "text" }, save_as = "b", next_steps = { "c" } },
        ConversationStep { step_id = "c", step_type = "user_input", prompt = "C?",
          input_schema = { type = "text" }, next_steps = { "end" } } } },
    tm.ConversationFlow { flow_id = "aside", start_step = "x",]]
  local ASIDE = [[ConversationStep { step_id = "x", step_type = "user_input", prompt = "X?",
    input_schema = { type = "text" }, save_as = "a", next_steps = { "end" } }]]

  before_each(function()
    load_flow(ASIDE, 'start_step = "a", interrupts = { { flow = "aside", phrases = { "hours" } } },'
      .. FLOWS)
    host:start()
    host:send "1"
  end)

  it("inside another flow, which is no part of it when it has ended", function()
    host:signal("approval", { approved = true, role = "boss" })
    host:send "2"
    host:send "hours"
    local turn = correct("b", "3")
    assert.same({ "fail", "command.refused" }, { turn.kind, turn.error.code })
    assert.matches("inside the flow 'aside'", turn.error.message, 1, true)
    assert.equal("c", host:send("nine").step)
    turn = correct("b", "3")
    assert.same({ "c", "1", "3" }, { turn.step, turn.state.a, turn.state.b })
  end)

  it("over what somebody else decided, but not while that is waited for", function()
    local turn = correct("a", "7")
    assert.same({ "waiting_approval", "7" }, { turn.status, turn.state.a })
    assert.equal("7?", turn.messages[1].text)
    turn = correct("a", {})
    assert.same({ "fail", "command.refused" }, { turn.kind, turn.error.code })
    host:signal("approval", { approved = true, role = "boss" })
    turn = correct("a", "8")
    assert.equal("command.refused", turn.error.code)
    assert.matches("'ok' (approval) has come between", turn.error.message, 1, true)
  end)

  it("when the prompt was left without an answer, or the conversation began anew", function()
    host:signal("approval", { approved = true, role = "boss" })
    host:send "2"
    host:signal("command", { command = "restart" })
    local turn = correct("b", "3")
    assert.equal("command.refused", turn.error.code)
    assert.matches("the way did not lead on", turn.error.message, 1, true)
  end)
end)
