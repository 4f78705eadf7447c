-- A conversation goes to another version of its scripts, or stays as it was.
local Host = require "tests.lua.fake_host"
local task = require "tidemill.task"

local host

local function flow(id, start, steps, more)
  return ([[tm.ConversationFlow { flow_id = "%s", start_step = "%s", %s steps = { %s } },]])
    :format(id, start, more or "", steps)
end

local function ask(id, more)
  return ([[ConversationStep { step_id = "%s", step_type = "user_input", prompt = "%s?",
    input_schema = { type = "text", required = true, min_length = 2 }, %s },]]):format(id, id,
    more or 'next_steps = { "end" }')
end

local KEEP = "migrate = function(state) return state end,"

--- Another version takes the place of the one that is loaded.
local function load(steps, main, others)
  local script = Host.script(steps, main)
  local at = script:find("flows = {", 1, true)
  host.files["init.lua"] = script:sub(1, at + 8) .. (others or "") .. script:sub(at + 9)
  host:load()
end

local function begin(steps, main, others, config)
  host = Host.new("", config)
  load(steps, main, others)
  return host:start()
end

local function migrate(done)
  local rows = #host.rows
  local turn = host:turn("migrate", done and { done = done })
  assert.equal(turn.kind == "fail" and rows or rows + 1, #host.rows, "one row, or none")
  return turn
end

local function refused(code, ...)
  local turn = migrate(host.done)
  assert.same({ "fail", code }, { turn.kind, turn.error and turn.error.code })
  for _, pattern in ipairs { ... } do assert.matches(pattern, turn.error.message) end
  return turn.error
end

local START = 'start_step = "name",'
local NAME = ask("name", 'save_as = "name", next_steps = { "city" }')
local CITY = ask("city", 'save_as = "city", next_steps = { "end" }')

after_each(function() assert.equal(0, task.count(), "a task was left behind") end)

describe("a migration", function()
  it("gives the state, and asks anew by the rules of the new version", function()
    begin(NAME .. CITY, START .. [[variables = { tries = 1 },
      settings = { interaction_timeout = 60 },]])
    host:send "Ann"
    local refusal = host:send "x"
    assert.equal(2, refusal.prompt.attempt)
    host.now = host.now + 5000
    local town = ask("city", 'save_as = "town", next_steps = { "zip" }')
    load(NAME .. town:gsub("city%?", "Which town?") .. ask("zip"),
      START .. [[variables = { tries = { type = "integer", default = 0 },
        zip = "unknown" }, settings = { interaction_timeout = 90, enable_rollback = true,
        max_rollback_steps = 3 },
      migrate = function(state, from)
        return { full_name = state.name, tries = state.tries + 1, from = from }
      end,]])
    local turn = migrate()
    assert.same({ "waiting_input", "city", "Which town?", 2 },
      { turn.status, turn.step, turn.prompt.text, turn.prompt.attempt })
    assert.same({ full_name = "Ann", tries = 2, from = "v1", zip = "unknown" }, turn.state)
    assert.same({ host.now + 90000, host.now + 90000 }, { turn.wake_at, turn.prompt.expires_at })
    assert.equal(3, turn.runtime.rollback)
    assert.same({}, turn.steps)
    assert.same({ "zip", "Paris" }, { host:send("Paris").step, host.ended.state.town })
    assert.equal("completed", host:send("75001").status)
    assert.equal("name city zip", host:path())
  end)

  it("goes wherever the conversation waits", function()
    local steps = [[
      ConversationStep { step_id = "ok", step_type = "approval", role = "boss", prompt = "OK?",
        timeout = %d, next_steps = { "come" } },
      ConversationStep { step_id = "come", step_type = "wait", event = "parcel-{n}",
        timeout = %d, next_steps = { "nap" } },
      ConversationStep { step_id = "nap", step_type = "wait", seconds = %d,
        next_steps = { "end" } },]]
    begin(steps:format(10, 10, 10), 'start_step = "ok", variables = { n = 1 },')
    load(steps:format(60, 60, 60), [[start_step = "ok", variables = { n = 1 },
      migrate = function(state) state.n = state.n + 1 return state end,]])
    host.now = host.now + 1000
    local turn = migrate()
    assert.same({ "waiting_approval", "ok", host.now + 60000 }, { turn.status, turn.step,
      turn.wake_at })
    host:signal("approval", { approved = true, role = "boss" })
    host.now = host.now + 1000
    turn = migrate()
    assert.same({ "waiting_event", host.now + 60000, "parcel-3" }, { turn.status, turn.wake_at,
      turn.runtime.wait.event })
    host:signal("event", { name = "parcel-3" })
    local asleep = host.now
    host.now = host.now + 1000
    turn = migrate()
    assert.same({ "sleeping", asleep + 60000 }, { turn.status, turn.wake_at }, "since it began")
    host.now = asleep + 60000
    assert.equal("completed", host:wake().status)
  end)

  it("of a version without that step is refused, and says everything at once", function()
    begin(NAME .. CITY, START)
    host:send "Ann"
    load((NAME:gsub("city", "end")), START .. KEEP)
    local err = refused("migrate.step", "c1 cannot go from version v1",
      "the flow 'main' has no step 'city', at which the conversation waits")
    assert.equal("conflict", err.status)
    load(NAME .. [[ConversationStep { step_id = "city", step_type = "wait", seconds = 1,
      next_steps = { "end" } },]], START .. KEEP)
    refused("migrate.step", "'city' of the flow 'main', .*, has become a step of the type wait")
    load(NAME .. CITY, START .. KEEP)
    assert.equal("city", migrate().step, "it was as before all the time")
    assert.same({ name = "Ann" }, host.ended.state)
  end)

  it("of one that could not be compensated any more is refused, and says why", function()
    local SAGA = START .. "compensate_on_failure = true,"
    local done = { "main/pay", "main/fork/l/book", "sub/ship" }
    begin(NAME .. CITY, SAGA)
    host:send "Ann"
    host.done = done
    local function act(id, more)
      return ([[ConversationStep { step_id = "%s", step_type = "action", next_steps = { "end" },
        run = function() end, %s },]]):format(id, more or "undo = function() end")
    end
    local function version(pay, book, ship)
      load(NAME .. CITY .. pay .. [[ConversationStep { step_id = "fork", step_type = "parallel",
        branches = { l = { ]] .. book .. " } }, next_steps = { 'end' } },", SAGA .. KEEP,
        flow("sub", ship, act(ship)))
    end
    version(act("pay", ""), act("book", ""), "mail")
    local err = refused("migrate.undo", "the step 'pay' of the flow 'main'",
      "the step 'book' of the flow 'main/fork/l'", "the step 'ship' of the flow 'sub'")
    assert.equal("conflict", err.status)
    version(act("pay", ""), act "book", "ship")
    err = refused("migrate.undo", "the step 'pay' of the flow 'main'")
    assert.is_nil(err.message:find("'book'", 1, true))
    version(act "pay", act "book", "ship")
    local turn = migrate(done)
    assert.same({ "waiting_input", "city" }, { turn.status, turn.step })
    begin(NAME .. CITY, START)
    host:send "Ann"
    load(NAME .. CITY, START .. KEEP)
    assert.equal("city", migrate(done).step)
  end)

  it("tells a wait for an event from one for a time", function()
    local wait = [[ConversationStep { step_id = "w", step_type = "wait", %s,
      next_steps = { "end" } },]]
    begin(wait:format 'event = "x"', 'start_step = "w",')
    load(wait:format "seconds = 5", 'start_step = "w",' .. KEEP)
    refused("migrate.step", "'w' .* has become a step of the type wait")
    begin(wait:format "seconds = 5", 'start_step = "w",')
    load(wait:format 'event = "x"', 'start_step = "w",' .. KEEP)
    refused("migrate.step", "'w' .* has become a wait for an event")
  end)

  it("needs the flow's own function, which returns a state of the flow", function()
    begin(NAME .. CITY, START)
    load(NAME .. CITY, START)
    local err = refused("migrate.undefined", "'main' %(scripts/shop/init.lua:%d+%) has no migrate")
    assert.equal("conflict", err.status)
    for body, problem in pairs {
      ["return nil"] = "returned a nil; it must return the new state",
      ["return tm.array {}"] = "returned a list",
      ["return { f = print }"] = "failed: .*print",
      ["return { f = function() end }"] = "returned a state that cannot be kept: .*f",
      ["error 'not this one'"] = "failed: .*init.lua:%d+: not this one",
      ["return { n = 'three' }"] = "gave 'n' a string, and the flow declares it as integer",
    } do
      load(NAME .. CITY, START .. [[variables = { n = { type = "integer", default = 0 } },
        migrate = function() ]] .. body .. " end,")
      local failed = refused("migrate.failed", "'main' %(.*init.lua:%d+%) " .. problem)
      assert.equal("script", failed.status)
    end
    load(NAME .. CITY, START .. KEEP)
    assert.equal("name", migrate().step)
  end)

  it("is refused when the new version cannot ask", function()
    begin(NAME .. CITY, START)
    host:send "Ann"
    load(NAME .. CITY:gsub("prompt", "metadata = { required_context = { 'country' } }, prompt"),
      START .. KEEP)
    refused("step.missing_context", "country")
    load(NAME .. CITY:gsub("city%?", "{country}?"), START .. KEEP)
    assert.matches("template", migrate().error.code)
    load(NAME .. CITY, START .. KEEP)
    assert.equal("city", migrate().step)
  end)

  it("takes a ladder of another length", function()
    local ladder = 'on_no_input = { %s { after = %d, close = true } }, save_as = "name",\z
      next_steps = { "city" }'
    begin(ask("name", ladder:format("{ after = 10, say = 'Hello?' }, { after = 20, say = 'So?' },",
      30)) .. CITY, START)
    host.now = host.now + 10000
    host:wake()
    host.now = host.now + 10000
    host:wake()
    load(ask("name", ladder:format("", 100)) .. CITY, START .. KEEP)
    local turn = migrate()
    assert.same({ host.now + 100000, host.now + 100000 }, { turn.wake_at, turn.prompt.expires_at })
    host.now = turn.wake_at
    assert.equal("expired", host:wake().status)
  end)

  it("keeps the fields of a form that the new version takes", function()
    local form = [[ConversationStep { step_id = "form", step_type = "user_input", prompt = "Form",
      input_schema = { type = "structured", fields = { %s } }, save_as = "form",
      next_steps = { "end" } },]]
    local function field(name, kind)
      return ('{ name = "%s", type = "%s", required = true, prompt = "%s?" },'):format(name, kind,
        name)
    end
    begin(form:format(field("a", "text") .. field("b", "text") .. field("c", "text")
      .. field("d", "text")), 'start_step = "form",')
    for _, said in ipairs { "one", "two", "three" } do host:send(said) end
    load(form:format(field("a", "text") .. field("b", "integer") .. field("d", "text")
      .. field("e", "text")), 'start_step = "form",' .. KEEP)
    local turn = migrate()
    assert.same({ { a = "one" }, "b?" }, { turn.runtime.wait.partial, turn.prompt.text })
    for _, said in ipairs { "2", "D", "E" } do host:send(said) end
    assert.same({ a = "one", b = 2, d = "D", e = "E" }, host.ended.state.form)
  end)

  it("that fails, or is refused, is in the log with where that was", function()
    begin(NAME .. CITY, START)
    load(NAME .. CITY, START .. "migrate = function() error 'boom' end,")
    refused "migrate.failed"
    local fields = { conversation_id = "c1", system = "shop", step_id = "name" }
    fields.code = "migrate.failed"
    assert.same({ "error", fields }, { host.logs[1].level, host.logs[1].fields })
    load(CITY, 'start_step = "city",' .. KEEP)
    refused "migrate.step"
    fields.code = "migrate.step"
    assert.same({ "info", fields }, { host.logs[2].level, host.logs[2].fields })
    fields.code = "conversation.not_paused"
    host:signal "unpause"
    assert.same({ "info", fields }, { host.logs[3].level, host.logs[3].fields })
    host.record.step = ""
    host:signal "unpause"
    assert.is_nil(host.logs[4].fields.step_id)
  end)

  it("of a paused conversation leaves it paused, and asks when it goes on", function()
    begin(NAME .. CITY, START .. "settings = { interaction_timeout = 60 },")
    host:send "Ann"
    host:signal "pause"
    host.now = host.now + 5000
    load(NAME .. CITY:gsub("city%?", "Town?"), START .. KEEP
      .. "settings = { interaction_timeout = 90 },")
    local turn = migrate()
    assert.same({ "paused", "city", 0 }, { turn.status, turn.step, turn.wake_at })
    assert.is_nil(turn.prompt)
    host.now = host.now + 5000
    turn = host:signal "unpause"
    assert.same({ "waiting_input", "Town?", host.now + 90000 }, { turn.status, turn.prompt.text,
      turn.wake_at })
    assert.is_nil(turn.runtime.paused)
    host:signal "pause" -- again, with nothing left of that
    host.now = host.now + 5000
    assert.equal("Town?", host:signal("unpause").prompt.text)
    load((NAME:gsub("city", "end")), START .. KEEP)
    host:signal "pause"
    refused("migrate.step", "no step 'city'")
  end)

  it("of one that sleeps counts its time from when it began, but for what it was held", function()
    local rest = [[ConversationStep { step_id = "rest", step_type = "wait", seconds = 60,
      next_steps = { "end" } },]]
    begin(rest, 'start_step = "rest",')
    local asleep = host.now
    host:signal "pause"
    host.now = host.now + 20000
    assert.equal(asleep + 80000, host:signal("unpause").wake_at)
    load(rest .. ask "more", 'start_step = "rest",' .. KEEP)
    host.now = host.now + 1000
    assert.equal(asleep + 80000, migrate().wake_at)
  end)

  it("mends a step that failed and waits to be run again", function()
    local act = [[ConversationStep { step_id = "act", step_type = "action", save_as = "done",
      run = function() %s end, next_steps = { "end" } },]]
    begin(ask("name", 'save_as = "name", next_steps = { "act" }') .. act:format "error 'a mistake'",
      START .. "settings = { resume_on_failure = true },")
    local turn = host:send "Ann"
    assert.same({ "paused", "act" }, { turn.status, turn.step })
    load(ask("name", 'save_as = "name", next_steps = { "act" }') .. act:format "return 'mended'",
      START .. KEEP .. "settings = { resume_on_failure = true },")
    assert.equal("paused", migrate().status)
    turn = host:signal "unpause"
    assert.same({ "completed", "mended" }, { turn.status, turn.state.done })
  end)
end)

describe("a migration of flows in flows", function()
  local SUB = flow("sub", "why", ask("why", 'save_as = "why", next_steps = { "end" }'), "%s")
  local HELP = flow("help", "topic", ask("topic", 'save_as = "topic", next_steps = { "end" }'),
    "%s")
  local CALL = [[ConversationStep { step_id = "call", step_type = "subflow", flow = "sub",
    result = "why", save_as = "why", next_steps = { "last" } },]] .. ask "last"
  local MAIN = [[start_step = "call", interrupts = { { flow = "help", phrases = { "help me" } } },]]

  local function others(sub, help) return SUB:format(sub or "") .. HELP:format(help or "") end

  local function begin_nested()
    begin(CALL, MAIN, (others():gsub('"why", ', '"why", interrupts = { { flow = "help", \z
      phrases = { "help me" } } },', 1)))
    return host:send "help me"
  end

  it("gives each flow its state", function()
    assert.same({ "topic", 2 }, { begin_nested().step, #host.ended.runtime.frames })
    local mark = "migrate = function(s, from) s.by = '%s ' .. from return s end,"
    load(CALL, MAIN .. mark:format "main", others(mark:format "sub", mark:format "help"))
    local turn = migrate()
    assert.same({ "topic", { by = "main v1" } }, { turn.step, turn.state })
    assert.same({ by = "help v1" }, turn.runtime.state)
    assert.same({ by = "sub v1" }, turn.runtime.frames[2].state)
    assert.equal(0, turn.wake_at)
    load((CALL:gsub('flow = "sub"', "%0, timeout = 60")), MAIN .. mark:format "main",
      others(mark:format "sub", mark:format "help"))
    assert.equal(host.now + 60000, migrate().wake_at, "the time of the step begins anew")
    assert.equal("why", host:send("billing").step)
    assert.same({ "last", "late" }, { host:send("late").step, host.ended.state.why })
  end)

  it("gives a step its whole time, however the conversation came to where it waits", function()
    local timed = CALL:gsub('flow = "sub"', "%0, timeout = 60")
    local function begin_timed(act)
      begin_nested()
      act()
      load(timed, MAIN .. KEEP, others(KEEP, KEEP))
    end
    begin_timed(function()
      host.record.runtime.restored = { moved = 500000, step_seq = 0 }
    end)
    assert.equal(host.now + 60000, migrate().wake_at)
    begin_timed(function()
      host:signal "pause"
      host.now = host.now + 500000
    end)
    assert.equal("paused", migrate().status)
    host.now = host.now + 700000
    assert.equal(host.now + 60000, host:signal("unpause").wake_at)
  end)

  it("is refused for whatever lies below, all of it named", function()
    begin_nested()
    load((CALL:gsub('"call"', '"phone"', 1)), 'start_step = "phone",' .. KEEP,
      flow("sub", "because", ask "because", KEEP))
    refused("migrate.step", "'main' has no step 'call', which waits for another flow",
      "'sub' has no step 'why', which was interrupted", "there is no flow 'help'")
    load(ask "call", 'start_step = "call",' .. KEEP, others(KEEP, KEEP))
    refused("migrate.step", "'call' .*, which waits for another flow, has become a step of the ")
    load(CALL, MAIN .. KEEP, others(nil, nil))
    local err = refused("migrate.undefined", "'sub'", "'help'")
    assert.is_nil(err.message:find("'main' (", 1, true))
    load(CALL, MAIN .. KEEP, others(KEEP, (KEEP:gsub("return state", "error 'no'"))))
    refused("migrate.failed", "'help'")
    load(CALL, MAIN .. KEEP, others(KEEP, KEEP))
    assert.equal("topic", migrate().step)
  end)

  it("knows the step behind a branch to a flow", function()
    local choose = [[ConversationStep { step_id = "choose", step_type = "decision",
      conditional_logic = { condition = function() return "x" end, x = "flow:sub" },
      next_steps = { "%s" } },]]
    local first = choose:format "last" .. ask "last"
    begin(first, 'start_step = "choose",', others())
    assert.equal("why", host.ended.step)
    load(choose:format "final" .. ask "final", 'start_step = "choose",' .. KEEP, others(KEEP, KEEP))
    refused("migrate.step", "'main' has no step 'last', which comes next")
    load(first, 'start_step = "choose",' .. KEEP, others(KEEP, KEEP))
    migrate()
    assert.equal("last", host:send("so").step)
  end)
end)
