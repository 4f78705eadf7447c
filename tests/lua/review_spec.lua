-- `review`: another agent looks at a reply before anybody sees it.
local Host = require "tests.lua.fake_host"
local json = require "host.json"
local review = require "tidemill.review"
local task = require "tidemill.task"

local host

after_each(function() assert.equal(0, task.count(), "a task was left behind") end)

local function load_step(fields, agents, before, flow)
  host = Host.new(Host.script(([[
    ConversationStep { step_id = "say", step_type = "agent_response", next_steps = { "ask" }, %s },
    ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?",
      input_schema = { type = "text" }, next_steps = { "say" } },
    ConversationStep { step_id = "sorry", step_type = "user_input", prompt = "Sorry.",
      input_schema = { type = "text" }, next_steps = { "say" } },]]):format(fields),
    (flow or "") .. ' start_step = "say",', before, agents))
  host:load()
  return host
end

local function said()
  local list = {}
  for _, message in ipairs(host:all "messages") do
    list[#list + 1] = message.role .. ": " .. message.text
  end
  return table.concat(list, ", ")
end

local function everything_kept()
  local kept = { host:all "steps", host:all "messages", host.record.state, host.ended.prompt or {},
    host.ended.error or {}, host.logs }
  return json.encode(kept)
end

describe("a verdict", function()
  it("has two shapes, and is strict", function()
    for _, answer in ipairs { { outcome = "pass" }, { outcome = "pass", text = "Nice." },
      '{"verdict":"pass"}', ' {"verdict": "pass", "reason": "fine"}\n',
      { text = '{"verdict":"pass"}' } } do
      assert.is_true(review.verdict(answer))
    end
    for _, answer in ipairs { { outcome = "reject", text = "Rude." },
      '{"verdict":"reject","reason":"Rude."}',
      { text = '{"verdict":"reject","reason":"Rude."}' } } do
      assert.same({ false, "Rude." }, { review.verdict(answer) })
    end
    assert.same({ false, "it gave no reason" }, { review.verdict { outcome = "reject" } })
  end)

  it("that is none lets nothing pass", function()
    for _, answer in ipairs { "pass", "PASS", "", "true", true, 1, {}, '["pass"]', '"pass"',
      '{"verdict":"Pass"}', '{"verdict":true}', '{"verdict":"pass","score":1}',
      '{"verdict":"pass","verdict":"reject"}', '{"verdict":"pass","reason":1}',
      '```json\n{"verdict":"pass"}\n```', 'I pass: {"verdict":"pass"}', '{"verdict":"pass"} so',
      { outcome = "passed" }, { outcome = true }, { outcome = 1, text = '{"verdict":"pass"}' },
      { outcome = "maybe", text = '{"verdict":"pass"}' }, { text = "pass" }, "\255",
      '{"verdict":"pass","reason":"' .. ("x"):rep(20000) .. '"}' } do
      assert.same({ false, "what it answered is no verdict" }, { review.verdict(answer) })
    end
    assert.is_false((review.verdict(nil)))
  end)

  it("keeps a reason of bounded length that can be stored", function()
    local _, reason = review.verdict { outcome = "reject", text = ("é\255"):rep(2000) }
    assert.is_true(#reason < 2000)
    assert.truthy(json.encode { reason })
  end)
end)

describe("a reply without a model", function()
  local RULES = [[agent = clerk, response = "It is {price}.", save_as = "told",
    review = { agent = "boss", response = "Not {price}.",
      outcome = { { contains = "free", outcome = "reject" }, default = "pass" } }]]
  local BOSS = ", boss = AssistantAgent { user_id = 'boss' }"

  it("passes by the rules for its text", function()
    load_step(RULES, BOSS, nil, 'variables = { price = "cheap" },')
    local turn = host:start()
    assert.equal("waiting_input", turn.status)
    assert.equal("agent: It is cheap., prompt: ?", said())
    assert.equal("It is cheap.", turn.state.told)
    assert.same({ agent = "boss", verdict = "pass" }, turn.steps[1].review)
    assert.equal("clerk", turn.steps[1].agent)
  end)

  it("is not kept anywhere when it does not", function()
    load_step(RULES, BOSS, nil, 'variables = { price = "FREE" },')
    local turn = host:start()
    assert.same({ "failed", "review.rejected" }, { turn.status, turn.error.code })
    assert.equal("", said())
    assert.is_nil(turn.state.told)
    assert.is_nil(everything_kept():find("It is", 1, true))
    assert.same({ agent = "boss", verdict = "reject", reason = "Not FREE." }, turn.steps[1].review)
    assert.is_nil(turn.error.message:find("FREE", 1, true))
    assert.truthy(turn.error.message:find("'boss' did not let the reply of the step 'say' pass", 1,
      true))
    assert.is_nil(turn.runtime.rejected)
  end)

  it("goes on to on_error", function()
    load_step(RULES .. ', on_error = "sorry"', BOSS, nil, 'variables = { price = "free" },')
    assert.equal("sorry", host:start().step)
    assert.equal("prompt: Sorry.", said())
  end)

  it("gives way to the fallback reply", function()
    load_step(RULES, BOSS .. " }, orchestrator = { error_config = { auto_recovery = true, "
      .. "fallback_responses = { agent_error = 'One moment.' } }", nil,
      'variables = { price = "free" },')
    local turn = host:start()
    assert.equal("waiting_input", turn.status)
    assert.truthy(said():find("^agent: One moment%., prompt: "))
    assert.is_nil(everything_kept():find("It is", 1, true))
  end)

  it("never passes without rules", function()
    load_step('agent = clerk, response = "Hi.", review = "boss"', BOSS)
    local turn = host:start()
    assert.same({ "failed", "what it answered is no verdict" },
      { turn.status, turn.steps[1].review.reason })
  end)

  it("may be judged by a function, which sees it", function()
    load_step([[agent = clerk, response = "Hi.", review = { agent = "boss",
      outcome = function(ctx) return ctx.output == "Hi." and "pass" or "reject" end }]], BOSS)
    assert.equal("waiting_input", host:start().status)
  end)
end)

describe("a reviewer of a script", function()
  local AGENTS = ", writer = writer, boss = boss"
  local BEFORE = [[
local writer = { respond = function(ctx, request)
  ctx.state.tried = (ctx.state.tried or 0) + 1
  local rejected = request.rejected
  ctx:http { url = "http://h/write", json = { rejected or "first" } }
  return rejected and "better" or "bad"
end }
local boss = { respond = function(ctx, request)
  local judged = ctx:http { url = "http://h/judge", json = { request.reply, request.prompt,
    request.outcomes, request.input or "", ctx.state.tried } }
  if judged.status == 500 then return nil, { code = "judge.away", message = "away" } end
  return judged.body == "pass" and { outcome = "pass" } or { outcome = "reject", text = "Too bad." }
end }]]

  local function judged(fields, before)
    load_step([[agent = "writer", prompt = "Greet.", review = "boss", save_as = "told",
      retry_delay = 0, ]] .. (fields or ""), AGENTS, before or BEFORE)
    host.outside = function(request)
      local pass = request.url:find "judge" and request.body:find "better"
      return { status = 200, headers = {}, body = pass and "pass" or "no" }
    end
  end

  local function asked()
    local list = {}
    for i, request in ipairs(host.requests) do list[i] = request.url:match "%a+$" end
    return table.concat(list, " ")
  end

  it("sees the reply, and its reason reaches the next attempt", function()
    judged "max_retries = 1"
    local turn = host:start { message = "Hello" }
    assert.same({ "suspend", 2 }, { turn.kind, turn.runtime.attempt })
    assert.same({ reply = "bad", reason = "Too bad." }, turn.runtime.rejected)
    assert.equal('["bad","Greet.",["pass","reject"],"Hello",1]', host.requests[2].body)
    turn = host:resume()
    assert.equal("waiting_input", turn.status)
    assert.equal('[{"reason":"Too bad.","reply":"bad"}]', host.requests[3].body)
    assert.equal("write judge write judge", asked())
    assert.equal("user: Hello, agent: better, prompt: ?", said())
    assert.same({ 1, "better" }, { turn.state.tried, turn.state.told })
    assert.is_nil(everything_kept():find("bad\"", 1, true))
    assert.is_nil(turn.runtime.rejected)
    assert.equal("say! say", host:path())
  end)

  it("is asked as often as attempts are allowed, not more", function()
    judged "max_retries = 2"
    host.outside = function() return { status = 200, headers = {}, body = "no" } end
    host:start()
    host:resume()
    local turn = host:resume()
    assert.same({ "failed", "say! say! say!" }, { turn.status, host:path() })
    assert.equal("write judge write judge write judge", asked())
    assert.is_nil(turn.state.tried)
  end)

  it("that fails fails the step as an agent does", function()
    judged ""
    host.outside = function(request)
      return { status = request.url:find "judge" and 500 or 200, headers = {}, body = "" }
    end
    local turn = host:start()
    assert.same({ "failed", "judge.away" }, { turn.status, turn.error.code })
    assert.is_nil(turn.steps[1].review)
    assert.equal("", said())
  end)

  it("and the agent are asked once each, whenever the host dies", function()
    local seen, stops = 0, 0
    local function stopping(at)
      return function() seen = seen + 1; return seen == at end
    end
    repeat
      stops, seen = stops + 1, 0
      judged "max_retries = 1"
      local ended = host:start({ message = json.null }, stopping(stops))
      if not ended then
        host:crash()
        if host.unfinished then host:resume() else host:start() end
      end
      local rest = ended and stops - seen
      if host.record.status == "active" then
        seen = 0
        if not host:resume(rest and stopping(rest)) then
          host:crash()
          host:resume()
        end
      end
      assert.equal("waiting_input", host.record.status)
      assert.equal("agent: better, prompt: ?", said())
      local times, keys = {}, {}
      for _, request in ipairs(host.requests) do
        local key = request.headers["Idempotency-Key"]
        times[key] = (times[key] or 0) + 1
        if times[key] == 1 then keys[#keys + 1] = request.url:match "%a+$" end
        assert.is_true(times[key] <= 2)
      end
      assert.equal("write judge write judge", table.concat(keys, " "))
      assert.is_true(#host.requests <= 5)
    until ended and rest > seen
    assert.is_true(stops > 10)
  end)

  it("cannot write, and its reply is not the transcript's", function()
    judged("", [[
local writer = { respond = function() return "Hi." end }
local boss = { respond = function(ctx) ctx.state.x = 1 return { outcome = "pass" } end }]])
    local turn = host:start()
    assert.same({ "failed", "script.error" }, { turn.status, turn.error.code })
    assert.truthy(turn.error.message:find("a review only judges", 1, true))
  end)

  it("keeps by ctx:once what it thinks of one reply, and of no other", function()
    judged("max_retries = 3", [[
local writer = { respond = function(ctx, request)
  local n = ctx:http { url = "http://h/write" }.body
  return ctx:once("same" .. n, function() return "reply " .. n end)
end }
local boss = { respond = function(ctx, request)
  local verdict = ctx:once("same1", function()
    return request.reply == "reply 3" and "pass" or "reject"
  end)
  return { outcome = verdict }
end }]])
    local written = 0
    host.outside = function()
      written = written + 1
      return { status = 200, headers = {}, body = tostring(written) }
    end
    host:start()
    host:resume()
    local turn = host:resume()
    assert.same({ "waiting_input", "reply 3" }, { turn.status, turn.state.told })
    assert.same({ "reject", "it gave no reason" },
      { host:all("steps")[2].review.verdict, host:all("steps")[2].review.reason })
  end)

  it("has what is left of the step's time", function()
    judged "timeout = 5"
    local left = {}
    host.outside = function(request)
      left[#left + 1] = request.timeout_ms
      host.now = host.now + 3000
      return { status = 200, headers = {}, body = "pass" }
    end
    local turn = host:start()
    assert.same({ 5000, 2000 }, left)
    assert.same({ "failed", "step.timeout" }, { turn.status, turn.error.code })
    assert.equal("", said())
  end)

  it("reviews in a branch, too", function()
    host = Host.new(Host.script([[
      ConversationStep { step_id = "both", step_type = "parallel", next_steps = { "ask" },
        branches = { one = { ConversationStep { step_id = "say", step_type = "agent_response",
          agent = "writer", review = "boss", max_retries = 1, retry_delay = 0 } } } },
      ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?",
        input_schema = { type = "text" }, next_steps = { "end" } },]], 'start_step = "both",',
      BEFORE, AGENTS))
    host:load()
    host.outside = function(request)
      local pass = request.url:find "judge" and request.body:find "better"
      return { status = 200, headers = {}, body = pass and "pass" or "no" }
    end
    assert.equal("waiting_input", host:start().status)
    assert.equal("agent: better, prompt: ?", said())
  end)
end)

describe("review, at load,", function()
  local function finds(text, fields, agents)
    local ok, err = pcall(load_step, fields, agents, [[
local stranger = AssistantAgent { user_id = "stranger" }]])
    assert.is_false(ok)
    assert.truthy(tostring(err):find(text, 1, true), tostring(err))
  end
  local BOSS = ", boss = { respond = function() end }"

  it("names an agent of the system, and not the step's own", function()
    finds("'review': there is no agent 'clrek'; did you mean 'clerk'?",
      'agent = "boss", review = "clrek"', BOSS)
    finds("'review' is not one of the system's agents", 'agent = clerk, review = stranger')
    finds("review: 'clerk' is the step's own agent", 'agent = clerk, review = clerk')
    finds("review: 'clerk' is the step's own agent", 'agent = clerk, review = { agent = "clerk" }')
    finds("review: 'agent' is missing", 'agent = clerk, review = { outcome = "pass" }')
    finds("review: unknown field 'agnet'", 'agent = clerk, review = { agnet = "boss" }', BOSS)
  end)

  it("has rules for an agent without a model only, and known outcomes", function()
    finds("review: 'outcome' and 'response' are what an offline agent answers",
      'agent = clerk, review = { agent = "boss", outcome = "pass" }', BOSS)
    finds("outcome: 'passed' is not among the outcomes of review: pass and reject",
      'agent = clerk, review = { agent = "boss", outcome = "passed" }',
      ", boss = AssistantAgent { user_id = 'boss' }")
    finds("'response of review'",
      'agent = clerk, review = { agent = "boss", response = "{", outcome = "pass" }',
      ", boss = AssistantAgent { user_id = 'boss' }")
  end)

  it("belongs to steps whose agent says something", function()
    local ok, err = pcall(function()
      host = Host.new(Host.script([[ConversationStep { step_id = "a", step_type = "action",
        run = function() end, review = clerk, next_steps = { "end" } } ]], 'start_step = "a",'))
      host:load()
    end)
    assert.is_false(ok)
    assert.truthy(tostring(err):find("'review' does not belong to 'action'", 1, true))
  end)

  it("is shown with the step", function()
    load_step('agent = clerk, response = "Hi.", review = { agent = "boss", outcome = "pass" }',
      ", boss = AssistantAgent { user_id = 'boss' }")
    assert.equal("boss", host.load().flows[1].steps[1].review)
  end)
end)
