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
