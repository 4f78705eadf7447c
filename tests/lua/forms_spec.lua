-- Forms in conversations: what a flow and a step's metadata say about them; surveys; slow steps.
local Host = require "tests.lua.fake_host"
local json = require "host.json"
local task = require "tidemill.task"

local host

after_each(function() assert.equal(0, task.count(), "a task was left behind") end)

local function load(steps, flow)
  host = Host.new(Host.script(steps, 'start_step = "ask",' .. (flow or "")))
  local described = host:load()
  host:start()
  return described
end

local FORM = [[
  ConversationStep { step_id = "ask", step_type = "user_input", prompt = "Form?",
    input_schema = { type = "structured", fields = {
      { name = "a", type = "text", required = true, min_length = 2, prompt = "A?" },
      { name = "b", type = "integer", required = true, prompt = "B?" },
      { name = "c", type = "text" } } }, save_as = "form", next_steps = { "again" }, %s },
  ConversationStep { step_id = "again", step_type = "user_input", prompt = "Again?",
    input_schema = { type = "text" }, next_steps = { "ask", "end" }, conditional_logic = {
      condition = function(ctx) return ctx.input end, more = "ask", default = "end" } },]]

describe("a form", function()
  it("tells all that is wrong at once, or the first, as its flow says", function()
    load(FORM:format "")
    assert.equal("a: An answer is needed here. b: Please answer with a whole number, such as 12.",
      host:send({ b = "x" }).prompt.hint)
    load(FORM:format "", "settings = { parallel_validation = false },")
    assert.equal("a: An answer is needed here.", host:send({ b = "x" }).prompt.hint)
  end)

  it("is refused as a whole unless it may be filled bit by bit", function()
    load(FORM:format "")
    local turn = host:send { b = 5 }
    assert.same({ "a: An answer is needed here.", 2, nil },
      { turn.prompt.hint, turn.prompt.attempt, turn.runtime.wait.partial })
  end)

  it("keeps what is filled, and asks for the rest", function()
    load(FORM:format "metadata = { allows_partial_completion = true }")
    local turn = host:send { b = 5 }
    assert.same({ json.null, 1, "A?", "a" }, { turn.prompt.hint, turn.prompt.attempt,
      turn.prompt.text, turn.prompt.input_schema.next })
    turn = host:send { a = "x", c = "see" }
    assert.matches("^a: The answer is too short", turn.prompt.hint)
    assert.same({ b = 5, c = "see" }, turn.runtime.wait.partial)
    assert.same({ a = "xy", b = 5, c = "see" }, host:send("xy").state.form)
  end)

  it("that its user leaves is still filled when it comes back, once", function()
    load(FORM:format [[metadata = { allows_partial_completion = true },
      on_no_input = { { after = 60, go = "again" } }, on_no_match = { "No.", { go = "again" } }]])
    host:send { b = 5 }
    host.now = host.now + 60000
    assert.equal("again", host:wake().step)
    local turn = host:send "more"
    assert.same({ "ask", "A?", { b = 5 } }, { turn.step, turn.prompt.text,
      turn.runtime.wait.partial })
    assert.is_nil(turn.runtime.forms)
    host:send { c = "see", a = "x" }
    assert.equal("again", host:send({ a = "x" }).step)
    assert.same({ b = 5, c = "see" }, host:send("more").runtime.wait.partial)
    host:send { a = "xy" }
    assert.same({ a = "xy", b = 5, c = "see" }, host.ended.state.form)
    assert.is_nil(host:send("more").runtime.wait.partial)
    host:send { b = 5 }
    host.now = host.now + 60000
    host:wake()
    host:signal("command", { command = "restart" })
    assert.same({ nil, nil }, { host.ended.runtime.wait.partial, host.ended.runtime.forms })
  end)

  it("that may not be left begins anew", function()
    load(FORM:format 'on_no_input = { { after = 60, go = "again" } }')
    host:send "xy"
    host.now = host.now + 60000
    host:wake()
    local turn = host:send "more"
    assert.is_nil(turn.runtime.wait.partial)
    assert.is_nil(turn.runtime.forms)
  end)
end)

describe("metadata", function()
  it("makes the answer to a survey the feedback", function()
    load([[ConversationStep { step_id = "ask", step_type = "user_input", prompt = "Content?",
      input_schema = { type = "integer", min = 1, max = 5 }, next_steps = { "end" },
      metadata = { satisfaction_survey = true } },]])
    assert.equal(4, host:send("4").runtime.feedback)
  end)

  it("keeps with the conversation since when a step runs or waits, and what is expected", function()
    local script = Host.script([[
      ConversationStep { step_id = "act", step_type = "action", next_steps = { "ask" },
        metadata = { expected_duration = 2 },
        run = function(ctx) return ctx:http { url = "http://x/" }.body end },
      ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?",
        input_schema = { type = "text", min_length = 2 }, metadata = { processing_time = "1d" },
        next_steps = { "hold" } },
      ConversationStep { step_id = "hold", step_type = "wait", seconds = 5,
        next_steps = { "end" } },]], 'start_step = "act",')
    host = Host.new(script)
    host:load()
    local began = host.now
    host.outside = function()
      host.now = host.now + 700
      return { status = 200, headers = {}, body = "" }
    end
    host:start()
    assert.same({ started = began, expected_ms = 2000 }, host.rows[1].runtime.progress)
    local asked = { started = began + 700, expected_ms = 86400000 }
    assert.same(asked, host.ended.runtime.progress)
    host.now = host.now + 1000
    assert.same(asked, host:send("x").runtime.progress, "the answer was refused")
    assert.is_nil(host:signal("pause").runtime.progress, "no time passes for it")
    assert.same(asked, host:signal("unpause").runtime.progress)
    assert.is_nil(host:send("yes").runtime.progress, "nothing is expected of that one")
    host.now = host.now + 5000
    assert.same({ "completed", nil }, { host:wake().status, host.ended.runtime.progress })
  end)

  it("tells of a step that took longer than expected", function()
    for _, name in ipairs { "expected_duration", "processing_time" } do
      local described = load(([[
        ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?",
          input_schema = { type = "text" }, next_steps = { "act" } },
        ConversationStep { step_id = "act", step_type = "action", next_steps = { "ask" },
          metadata = { %s = 2 }, run = function(ctx)
            local answer, err = ctx:http { url = "http://x/" }
            if ctx.input == "break" then error("odd") end
            return answer and answer.body, err
          end },]]):format(name), "settings = { resume_on_failure = true },")
      assert.same({ nil, 2000 }, { described.flows[1].steps[1].expected_ms,
        described.flows[1].steps[2].expected_ms })
      local takes = 2000
      host.outside = function()
        host.now = host.now + takes
        return { status = 200, headers = {}, body = "" }
      end
      host:send "x"
      assert.same({}, host.logs)
      takes = 2001
      host:send "x"
      assert.same({ { level = "warning", message = "a step was slow: it took 2001 ms, and 2000 "
        .. "were expected", fields = { event = "slow_step", conversation_id = "c1", step_id = "act",
        system = "shop", took_ms = 2001 } } }, host.logs)
      host:send "break"
      assert.equal("slow_step", host.logs[#host.logs].fields.event, "a failed attempt too")
    end
  end)
end)

describe("a form that is begun", function()
  local OPTIONAL = [[
    ConversationStep { step_id = "ask", step_type = "user_input", prompt = "Form?",
      save_as = "form", input_schema = { type = "structured", %s fields = {
        { name = "p", type = "integer", prompt = "P?", validate = function(value)
            if value == 13 then error("odd") end
            return value < 9, "Less, please."
          end },
        { name = "q", type = "text", prompt = "Q?" },
        { name = "r", type = "text", required = %s, prompt = "R?" } } },
      next_steps = { "ask", "again" }, conditional_logic = { condition = function(ctx)
        return ctx.state.twice and "once_more" end, once_more = "ask", default = "again" } },
    ConversationStep { step_id = "again", step_type = "user_input", prompt = "{form.p}?",
      input_schema = { type = "text" }, next_steps = { "end" } },]]
  local SKIPS = "settings = { allow_step_skipping = true },"

  local function skip() return host:signal("command", { command = "skip" }) end
  local function correct(name, value)
    return host:signal("command", { command = "correct", name = name, input = value })
  end

  it("keeps what is filled when a field is skipped", function()
    load(OPTIONAL:format("", "false"), SKIPS)
    host:send "3"
    local turn = skip()
    assert.same({ "R?", 1, { p = 3, q = "" } }, { turn.prompt.text, turn.prompt.attempt,
      turn.runtime.wait.partial })
    turn = skip()
    assert.same({ "again", { p = 3, q = "", r = "" } }, { turn.step, turn.state.form })
    turn = correct("p", 4)
    assert.same({ "again", "4?", { p = 4, q = "", r = "" } }, { turn.step, turn.prompt.text,
      turn.state.form })
  end)

  it("is skipped as a whole when none is filled", function()
    load(OPTIONAL:format("", "false"), SKIPS)
    assert.same({ p = json.null, q = "", r = "" }, skip().state.form)
  end)

  it("says which field is required", function()
    load(OPTIONAL:format("", "true"), SKIPS)
    assert.equal("This question cannot be skipped.", skip().prompt.hint)
    host:send "3"
    assert.matches("say: restart, skip.", host:signal("command", { command = "help" }).prompt.hint,
      1, true)
    assert.equal("R?", skip().prompt.text)
    local turn = skip()
    assert.same({ "R?: This field is required.", 1, { p = 3, q = "" } },
      { turn.prompt.hint, turn.prompt.attempt, turn.runtime.wait.partial })
    assert.matches("say: restart.", host:signal("command", { command = "help" }).prompt.hint, 1,
      true)
    load(OPTIONAL:format("", "true"))
    host:send "3"
    assert.equal("This question cannot be skipped.", skip().prompt.hint)
  end)

  it("that wants one answer is asked anew when its last field is skipped, too", function()
    load(OPTIONAL:format("required = true,", "false"), SKIPS)
    host:send ""
    skip()
    local turn = skip()
    assert.same({ "P?", "An answer is needed here.", 2 }, { turn.prompt.text,
      turn.prompt.hint, turn.prompt.attempt })
  end)

  it("takes another answer for a field, as strictly as the first one", function()
    load(OPTIONAL:format("", "true"), SKIPS)
    host:send "3"
    local turn = correct("p", "4")
    assert.same({ "ask", "Q?", json.null, { p = 4 }, 1 }, { turn.step, turn.prompt.text,
      turn.prompt.hint, turn.runtime.wait.partial, turn.runtime.wait.shown })
    turn = correct("p", "10")
    assert.same({ "P?: Less, please.", 1, { p = 4 }, 2 }, { turn.prompt.hint, turn.prompt.attempt,
      turn.runtime.wait.partial, turn.runtime.wait.shown })
    assert.equal("P?: Please answer with a whole number, such as 12.",
      correct("p", "x").prompt.hint)
    host:send "q"
    assert.same({ p = 5, q = "q" }, correct("p", 5).runtime.wait.partial)
    assert.same({ p = 5, q = "q", r = "r" }, host:send("r").state.form)
    assert.equal("ask", host:path())
  end)

  it("fails as at an answer when its validate does", function()
    load(OPTIONAL:format("", "true"), SKIPS)
    host:send "3"
    assert.same({ "failed", "script.error" }, { correct("p", "13").status,
      host.ended.error.code })
  end)

  it("of a field that is not filled leaves it to the form before", function()
    load(OPTIONAL:format("", "true"), SKIPS .. "variables = { twice = true },")
    host:send { p = 1, q = "q", r = "r" }
    local turn = host:send "2"
    assert.same({ "ask", { p = 2 } }, { turn.step, turn.runtime.wait.partial })
    assert.same({ p = 1, q = "z", r = "r" }, correct("q", "z").state.form)
    assert.same({ p = 2 }, host.ended.runtime.wait.partial)
  end)

  it("in a flow in a flow takes it as well", function()
    local script = Host.script([[ConversationStep { step_id = "ask", step_type = "subflow",
      flow = "inner", next_steps = { "end" } },]], 'start_step = "ask",')
    local inner = 'flows = { tm.ConversationFlow { flow_id = "inner", start_step = "ask", steps = {'
      .. OPTIONAL:format("", "true") .. "} },"
    host = Host.new((script:gsub("flows = {", function() return inner end, 1)))
    host:load()
    host:start()
    host:send "3"
    assert.same({ p = 4 }, correct("p", "4").runtime.wait.partial)
  end)
end)
