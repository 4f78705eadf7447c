-- The patterns: a flow of each builder runs and passes `check`, what it is given wrong is told at
-- the line of the call, and a flow that only says its pattern is held to the shape.
local Host = require "tests.lua.fake_host"
local check = require "tidemill.check"
local json = require "host.json"

local host

local SYSTEM = [[
local tm = require "tidemill"
local S = tm.ConversationStep
local one = tm.AssistantAgent { user_id = "one" }
local two = tm.AssistantAgent { user_id = "two" }
local three = { respond = function(ctx, request) -- says what it is told, and asks somebody
  assert(ctx:http { url = "http://x/" .. ctx.step.id })
  return { text = request.prompt, outcome = request.outcomes and "yes" }
end }
local function echo() return { respond = function(_, r) return r.prompt end } end local flow = %s
return tm.system { agents = { one = one, two = two, three = three, echo = echo }, flows = { flow } }
]]

local function load(flow)
  host = Host.new(SYSTEM:format(flow))
  host:load()
  return host
end

--- What `check` finds, less that an agent has no step.
local function findings(flow)
  host = Host.new(SYSTEM:format(flow))
  local lines = {}
  for _, item in ipairs(json.decode(check.run "shop").items) do
    if not item.text:find("no step uses it", 1, true) then
      lines[#lines + 1] = ("%s:%d: %s: %s [%s]"):format(item.file, item.line, item.level, item.text,
        item.rule)
    end
  end
  return table.concat(lines, "\n")
end

local function finds(flow, ...)
  local found = findings(flow)
  for _, text in ipairs { ... } do
    assert.is_truthy(found:find(text, 1, true), ("no '%s' in:\n%s"):format(text, found))
  end
end

--- The messages of the last turn, as "kind text".
local function said(turn)
  local lines = {}
  for i, message in ipairs(turn.messages) do lines[i] = message.text end
  return table.concat(lines, " | ")
end

local function say(value)
  return said(host:send(value))
end

--- A flow by hand that says to be of a pattern.
local function by_hand(pattern, start, steps)
  return ([[tm.ConversationFlow { flow_id = "main", pattern = tm.ConversationPattern.%s,
    start_step = "%s", steps = { %s } }]]):format(pattern, start, steps)
end

local ASK = [[S { step_id = "ask", step_type = "user_input", prompt = "?", %s
  input_schema = { type = "text" } },]]
local TELL = [[S { step_id = "tell", step_type = "agent_response", agent = "one", response = "Hm.",
  next_steps = { "%s" } },]]

describe("step by step", function()
  local FLOW = [[tm.pattern.step_by_step_process { flow_id = "main", steps = {
    S { step_id = "ask", step_type = "user_input", prompt = "?", save_as = "it",
      input_schema = { type = "text" } },
    S { step_id = "tell", step_type = "agent_response", agent = one, response = "So {it}." } } }]]

  it("goes from each step to the one behind it", function()
    assert.equal("", findings(FLOW))
    load(FLOW)
    host:start()
    assert.equal("x | So x.", say "x")
    assert.equal("completed", host.record.status)
  end)

  it("leaves the script's own steps as they are: they may be in two flows", function()
    local two = SYSTEM:gsub("flows = { flow }", "flows = { flow[1], flow[2] }")
    host = Host.new(two:format [[(function()
      local ask = S { step_id = "ask", step_type = "user_input", prompt = "?", save_as = "it",
        input_schema = { type = "text" } }
      local function tell(said) return S { step_id = "tell", step_type = "agent_response",
        agent = one, response = said } end
      local a = tm.pattern.step_by_step_process { flow_id = "main", steps = { ask, tell "A" } }
      assert(ask.next_steps == nil)
      return { a, tm.pattern.step_by_step_process { flow_id = "b", steps = { tell "B", ask } } }
    end)()]])
    host:load()
    host:start()
    assert.equal("x | A", say "x")
    host.flow_id, host.record, host.rows = "b", { status = "active", step = "" }, {}
    assert.equal("B | ?", said(host:start()))
    assert.equal("completed", host:send("x").status)
  end)

  it("needs steps", function()
    finds([[tm.pattern.step_by_step_process { flow_id = "main", steps = {} }]],
      "init.lua:9: error: flow 'main': step_by_step_process: 'steps' must be a list of "
      .. "ConversationStep { … }, at least one [fields]")
    finds([[tm.pattern.step_by_step_process { flow_id = "main", steps = { 5 } }]],
      "'steps' must be a list of ConversationStep")
    finds([[tm.pattern.step_by_step_process { flow_id = "main", steps = { S { step_id = "a",
      step_type = "decision", condition = "x", conditional_logic = { y = "a" } } } }]],
      "'next_steps' is missing")
  end)
end)

describe("a simple chat", function()
  local FLOW = [[tm.pattern.simple_chat { flow_id = "main", agent = one, prompt = "Hello?",
    response = "You said {message}." %s }]]

  it("goes round until the user ends it", function()
    local flow = FLOW:format [[, again = "And?", stop = { "Enough" }, farewell = "See you." ]]
    assert.equal("", findings(flow))
    load(flow)
    assert.equal("Hello?", said(host:start()))
    assert.equal("A | You said A. | And?", say "A")
    host:crash()
    assert.equal("bye | You said bye. | And?", say "bye")
    assert.equal(" enough!  | See you.", say " enough! ")
    assert.same({ "completed", "simple_chat" }, { host.record.status,
      require("tidemill.system").loaded("shop").flows.main.pattern })
  end)

  it("ends without a word, and at bye, unless told otherwise", function()
    assert.equal("", findings(FLOW:format ""))
    load(FLOW:format "")
    host:start()
    assert.equal("A | You said A. | Hello?", say "A")
    assert.equal("Goodbye", say "Goodbye")
    assert.equal("completed", host.record.status)
  end)

  it("takes what any flow takes", function()
    local flow = FLOW:format [[, settings = { interaction_timeout = 60 },
      on_no_match = { "Say something." } ]]
    load(flow)
    assert.equal(host.now + 60000, host:start().wake_at)
    assert.matches("Say something.", say "", 1, true)
  end)

  it("is told what is wrong with it where it was called", function()
    finds([[

      tm.pattern.simple_chat { flow_id = "main", agnet = one, prompt = 5 }]],
      "scripts/shop/init.lua:10: error: flow 'main': simple_chat: unknown field 'agnet'; did you "
        .. "mean 'agent'? [fields]",
      "init.lua:10: error: flow 'main': simple_chat: 'prompt' must be a text, not 5 [fields]",
      "init.lua:10: error: flow 'main': simple_chat: 'agent' is missing [fields]")
    finds(FLOW:format [[, stop = {} ]], "'stop' must name at least one word")
    finds(FLOW:format [[, start_step = "ask" ]], "unknown field 'start_step'")
    finds([[tm.pattern.simple_chat { flow_id = "main", agent = "four", prompt = "?",
      response = "{nothing}" }]], "step 'answer': 'agent': there is no agent 'four'",
      "names {nothing}")
    finds([[tm.pattern.simple_chat "x"]],
      "init.lua:9: error: simple_chat needs a table: pattern.simple_chat { … } [script]")
    finds([[tm.pattern.simple_chat(setmetatable({}, {}))]], "must be a plain table")
    finds([[tm.pattern.simple_chats { }]], "pattern has no 'simple_chats'; did you mean "
      .. "'simple_chat'?")
    finds([[(function() tm.pattern.simple_chat = 1 end)()]], "pattern.simple_chat cannot be set")
  end)

  it("is told so in a file of its own, which ends with the call", function()
    local function of(last)
      host = Host.new { ["init.lua"] = [[local tm = require "tidemill"
        local talk = require "talk"
        return tm.system { agents = {}, flows = { talk } }]],
        ["talk.lua"] = "local tm = require 'tidemill'\n-- simple_chat\n\n" .. last }
      local item = json.decode(check.run "shop").items[1]
      return ("%s:%d: %s"):format(item.file, item.line, item.text)
    end
    local text = "scripts/shop/talk.lua:4: flow 'main': simple_chat: 'agent' is missing"
    assert.equal(text, of "return tm.pattern.simple_chat { flow_id = 'main', prompt = '?' }")
    assert.equal(text, of [[local pattern = tm.pattern return pattern.simple_chat({
      flow_id = 'main', prompt = '?' })]])
    assert.equal(text, of [[local flow = tm.pattern.simple_chat {
      flow_id = 'main', prompt = '?' } return flow]])
  end)

  it("written by hand asks, answers, and asks again", function()
    local function hand(ask, tell)
      return by_hand("SIMPLE_CHAT", ask ~= "" and "ask" or "tell",
        (ask ~= "" and ASK:format(ask) or "") .. (tell and TELL:format(tell) or ""))
    end
    local stops = [[conditional_logic = { condition = function() return "no" end, no = "end",
      default = "tell" }, next_steps = { "tell", "end" },]]
    assert.equal("", findings(hand(stops, "ask")))
    finds(hand([[next_steps = { "tell" },]], "end"), "init.lua:11: error: flow 'main': pattern "
      .. "'simple_chat': the step 'tell' does not lead back to a user_input", "[pattern]")
    finds(hand("", "end"), "flow 'main': pattern 'simple_chat': there is no user_input of the type "
      .. "'text'")
    finds(hand([[next_steps = { "end" },]]), "there is no agent_response")
  end)
end)

describe("information gathering", function()
  local FLOW = [[tm.pattern.information_gathering { flow_id = "main", questions = {
    { name = "who", type = "text", prompt = "Who?", required = true, min_length = 2 },
    { name = "how_many", type = "integer", prompt = "How many?", required = true } } %s }]]
  local ALL = [[, confirm = "{who}, {how_many}?", agent = one, response = "Order {result}.",
    run = function(ctx) return ctx.state.who .. ctx.state.how_many end ]]

  it("asks one by one, lets the user change an answer, and hands it over", function()
    assert.equal("", findings(FLOW:format(ALL)))
    load(FLOW:format(ALL))
    assert.equal("Who?", said(host:start()))
    assert.matches("Who%?$", say "x")
    assert.equal("Jo | How many?", say "Jo")
    assert.equal("2 | Jo, 2?", say "2")
    assert.matches("^no | Which answer is to be changed%?", say "no")
    host:crash()
    assert.equal("who | Who?", say "who")
    assert.equal("Al | Al, 2?", say "Al")
    assert.equal("no | Which answer is to be changed?", say "no")
    assert.equal("how many | How many?", say "how many")
    assert.equal("3 | Al, 3?", say "3")
    assert.equal("yes | Order Al3.", say "yes")
    assert.equal("completed", host.record.status)
  end)

  it("asks no more than it was told to", function()
    assert.equal("", findings(FLOW:format ""))
    load(FLOW:format "")
    host:start()
    say "Jo"
    assert.equal("completed", host:send("2").status)
    assert.same({ "Jo", 2 }, { host.record.state.who, host.record.state.how_many })
    local single = [[tm.pattern.information_gathering { flow_id = "main", confirm = "{who}?",
      questions = { { name = "who", type = "text", prompt = "Who?", required = true } } }]]
    assert.equal("", findings(single))
    load(single)
    host:start()
    say "Jo"
    assert.equal("no | Who?", say "no")
    assert.equal("Al | Al?", say "Al")
    assert.equal("completed", host:send("yes").status)
  end)

  it("may ask for all at once", function()
    local flow = FLOW:format [[, together = "Who, and how many?", confirm = "{who}, {how_many}?" ]]
    assert.equal("", findings(flow))
    load(flow)
    host:start()
    assert.matches("How many%?$", say { who = "Jo" })
    assert.equal("2 | Jo, 2?", say "2")
    assert.matches("Who, and how many%?", say "no")
    say { who = "Al", how_many = 3 }
    assert.equal("completed", host:send("yes").status)
    assert.same({ "Al", 3 }, { host.record.state.who, host.record.state.how_many })
  end)

  it("is told what is wrong with it where it was called", function()
    local function wrong(questions, more)
      return ([[tm.pattern.information_gathering { flow_id = "main", questions = { %s } %s }]])
        :format(questions, more or "")
    end
    finds(wrong "", "init.lua:9: error: flow 'main': information_gathering: 'questions' must name "
      .. "at least one question [fields]")
    finds(wrong [[{ name = "a b", type = "text", prompt = "?" }, 5]],
      "information_gathering: questions[1]: 'name' = 'a b' is no name",
      "information_gathering: questions[2] must be a table")
    finds(wrong [[{ name = "a", type = "text" }, { name = "b", typ = "text", prompt = "?" }]],
      "questions[1]: 'prompt' is missing",
      "questions[2]: unknown field 'typ'; did you mean 'type'?")
    finds(wrong [[{ name = "a", type = "text", prompt = "?" },
      { name = "a", type = "text", prompt = "?" }]], "questions[2]: 'name' = 'a' is there twice")
    finds(wrong [[{ name = "a", type = "txet", prompt = "?" }]],
      "init.lua:9: error: flow 'main', step 'ask_a': input_schema: input: 'type' is 'txet'")
    finds(wrong([[{ name = "default", type = "text", prompt = "?" }]], [[, confirm = "?" ]]),
      "'name' = 'default' is a word of conditional_logic")
    local taken = "is taken: the flow keeps something else under it"
    finds(wrong([[{ name = "confirmed", type = "text", prompt = "?" },
      { name = "changing", type = "text", prompt = "?" },
      { name = "result", type = "text", prompt = "?" }]], [[, confirm = "?", run = tm.array]]),
      "init.lua:9: error: flow 'main': information_gathering: questions[1]: 'name' = 'confirmed' "
        .. taken, "questions[2]: 'name' = 'changing' " .. taken,
      "questions[3]: 'name' = 'result' " .. taken)
    assert.equal("", findings(wrong [[{ name = "confirmed", type = "text", prompt = "?" },
      { name = "result", type = "text", prompt = "?" }]]))
    finds(FLOW:format [[, change = "?" ]], "'change' is asked after 'confirm' only")
    finds(FLOW:format [[, response = "Thanks." ]], "'agent' is missing: who says the 'response'")
  end)

  it("written by hand keeps each answer, and asks on every way", function()
    local function hand(steps, start)
      return by_hand("INFORMATION_GATHERING", start or "ask", steps)
    end
    local kept = ASK:format [[save_as = "it", next_steps = { "end" },]]
    assert.equal("", findings(hand(kept)))
    finds(hand(ASK:format [[next_steps = { "end" },]]), "init.lua:10: error: flow 'main': pattern "
      .. "'information_gathering': the step 'ask' asks, but keeps the answer under no name",
      "there is no user_input that keeps its answer: nothing is gathered [pattern]")
    local past = [[S { step_id = "choose", step_type = "decision", next_steps = { "ask", "end" },
      condition = function() return "a" end, conditional_logic = { a = "ask", default = "end" } },]]
    finds(hand(past .. kept, "choose"), "a way leads to an end past every user_input that keeps")
  end)
end)

describe("a decision tree", function()
  local FLOW = [[tm.pattern.decision_tree { flow_id = "main", agent = one, tree = {
    ask = "What is it?", options = {
      { label = "Light", leads_to = { id = "bulb", ask = "New bulb?", options = {
        { label = "Yes", value = true, leads_to = { say = "Call us." } },
        { label = "No", value = false, leads_to = { say = "Change it.", agent = two } } } } },
      { label = "Water", value = "h2o", leads_to = { condition = function(ctx)
          return ctx.session.user_id and "known" or "unknown" end,
        outcomes = { known = { run = function() return "sent" end } },
        otherwise = { say = "Who are you?" } } } },
    otherwise = { say = "{tree}? Never heard of it." } } }]]

  it("leads to a leaf by answers and conditions", function()
    assert.equal("", findings(FLOW))
    load(FLOW)
    assert.equal("What is it?", said(host:start()))
    assert.equal("light | New bulb?", say "light")
    host:crash()
    assert.equal("no | Change it.", say "no")
    assert.equal("tree bulb bulb_2", host:path())
    load(FLOW)
    host:start()
    assert.equal("h2o | Who are you?", say "h2o")
    load(FLOW)
    host:start()
    assert.equal("Gas | Gas? Never heard of it.", say "Gas")
    assert.equal("completed", host.record.status)
  end)

  it("leaves the rest to another flow", function()
    local flow = [[tm.pattern.decision_tree { flow_id = "main", tree = { condition = "which",
      outcomes = { a = { flow = "other" }, b = { run = function() end } }, otherwise =
      { flow = "main" } }, variables = { which = "a" } }]]
    finds(flow, "step 'tree_1': there is no flow 'other'")
  end)

  it("is told what is wrong with it where it was called", function()
    local function wrong(tree, more)
      return ([[tm.pattern.decision_tree { flow_id = "main", tree = %s %s }]]):format(tree,
        more or "")
    end
    finds(wrong "{}", "init.lua:9: error: flow 'main': decision_tree: tree must be a node: a table "
      .. "with one of ask, condition, say, run, flow [fields]")
    finds(wrong [[{ ask = "?", say = "!" }]], "tree has 'ask' and 'say'; give one")
    finds(wrong [[{ ask = "?", options = { { label = "a", leads_to = { say = "!", optoins = 1 } },
      { label = "b", leads_to = { say = "!" } }, { lable = "c" } } }]],
      "decision_tree: tree.options[1].leads_to: unknown field 'optoins'; did you mean 'options'?",
      "decision_tree: tree.options[2].leads_to needs an 'agent', its own or the tree's",
      "decision_tree: tree.options[3]: 'label' is missing",
      "decision_tree: tree.options[3]: 'leads_to' is missing")
    finds(wrong [[{ ask = "?", options = { { label = "default", leads_to = {} } } }]],
      "tree.options[1] 'value' = 'default' is a word of conditional_logic")
    finds(wrong [[{ ask = "?", options = {} }]], "tree has no 'options'")
    finds(wrong [[{ condition = "x", outcomes = { default = { say = "!" } } }]],
      "tree.outcomes.default is a word of conditional_logic")
    finds(wrong [[{ condition = "x", outcomes = {}, options = {} }]],
      "tree: 'options' does not belong to 'condition', only to ask")
    finds(wrong([[{ id = "a-b", say = "!" }]], ", agent = one"), "tree 'id' = 'a-b' is no name")
    finds(wrong([[{ ask = "?", options = { { label = "a", leads_to = { say = "!" } } } }]],
      ", agent = one"), "pattern 'decision_tree': the step 'tree' leads to the same whatever its "
      .. "outcome")
  end)

  it("has an end to how large it can be", function()
    local endless = [[(function() local tree = { id = "x", condition = "y", outcomes = {} }
      tree.outcomes.a, tree.outcomes.b = tree, tree
      return tm.pattern.decision_tree { flow_id = "main", tree = tree } or nil end)()]]
    finds(endless, "init.lua:11: error: flow 'main': decision_tree: tree has more than 2000 nodes, "
      .. "or is deeper than 50")
  end)

  it("written by hand chooses, and never leads back", function()
    local function hand(steps, start) return by_hand("DECISION_TREE", start or "pick", steps) end
    local pick = [[S { step_id = "pick", step_type = "decision", next_steps = { "tell", "%s" },
      condition = function() return 1 end, conditional_logic = { a = "tell", default = "%s" } },]]
    assert.equal("", findings(hand(pick:format("end", "end") .. TELL:format "end")))
    finds(hand(pick:format("end", "end") .. TELL:format "pick"), "init.lua:10: error: flow 'main': "
      .. "pattern 'decision_tree': the step 'pick' leads back to itself")
    finds(hand(pick:format("end", "tell") .. TELL:format "end"), "leads to the same whatever")
    finds(hand(TELL:format "end", "tell"), "flow 'main': pattern 'decision_tree': no step chooses")
  end)
end)

describe("an approval workflow", function()
  local FLOW = [[tm.pattern.approval_workflow { flow_id = "main", request = {
      { name = "what", type = "text", prompt = "What?", required = true } },
    approvals = { { role = "lead", prompt = "Buy {what}?" },
      { role = "boss", prompt = "Really {what}? {approval_1.comment|}", timeout = 60 } },
    run = function(ctx) return ctx.state.what .. "!" end, agent = one,
    approved = "Bought {result}", rejected = "No {what}." %s }]]

  local function decide(role, approved, comment)
    return said(host:signal("approval", { approved = approved, role = role, comment = comment }))
  end

  it("does it when everybody has approved", function()
    assert.equal("", findings(FLOW:format ""))
    load(FLOW:format "")
    host:start()
    assert.equal("tea | Buy tea?", say "tea")
    assert.equal("Really tea? ok", decide("lead", true, "ok"))
    host:crash()
    assert.equal("Bought tea!", decide("boss", true))
    assert.equal("completed", host.record.status)
  end)

  it("does it not when one rejects, or is silent for too long", function()
    load(FLOW:format "")
    host:start()
    say "tea"
    assert.equal("No tea.", decide("lead", false))
    assert.same({ "completed", nil }, { host.record.status, host.record.state.result })
    load(FLOW:format "")
    host:start()
    say "tea"
    decide("lead", true)
    host.now = host.now + 60000
    assert.equal("No tea.", said(host:wake()))
  end)

  it("asks again for what was rejected", function()
    assert.equal("", findings(FLOW:format ", revise = true"))
    load(FLOW:format ", revise = true")
    host:start()
    say "tea"
    assert.equal("No tea. | What?", decide("lead", false))
    assert.equal("milk | Buy milk?", say "milk")
    decide("lead", true)
    assert.equal("Bought milk!", decide("boss", true))
  end)

  it("may begin with the approval, and say nothing", function()
    local flow = [[tm.pattern.approval_workflow { flow_id = "main", irreversible = true,
      approvals = { { role = "boss", prompt = "Now?" } }, run = function() return "done" end }]]
    assert.equal("", findings(flow))
    load(flow)
    assert.equal("Now?", said(host:start()))
    decide("boss", true)
    assert.equal("done", host.record.state.result)
  end)

  it("is told what is wrong with it where it was called", function()
    local function wrong(more)
      return ([[tm.pattern.approval_workflow { flow_id = "main", %s }]]):format(more)
    end
    finds(wrong "approvals = {}", "init.lua:9: error: flow 'main': approval_workflow: 'approvals' "
      .. "must name at least one role [fields]", "nothing hangs on the decision")
    finds(wrong "approvals = { { rolle = 'boss', prompt = '?' } }, rejected = 'No.'",
      "approvals[1]: unknown field 'rolle'; did you mean 'role'?",
      "approvals[1]: 'role' is missing", "'agent' is missing: who says 'approved' and 'rejected'")
    finds(wrong "approvals = { { role = 'boss', prompt = '?' } }, revise = true, undo = print2",
      "'revise' needs a 'request'")
    finds(wrong "approvals = { { role = 'boss', prompt = '?' } }, irreversible = false",
      "'undo' and 'irreversible' belong to 'run'")
    finds(wrong "approvals = { { role = 'boss', prompt = '?' } }, request = {}, revise = true",
      "'request' must name at least one question")
    finds(wrong([[approvals = { { role = 'boss', prompt = '?' } }, run = tm.array, request = {
      { name = "result", type = "text", prompt = "?" },
      { name = "approval_1", type = "text", prompt = "?" },
      { name = "approval_2", type = "text", prompt = "?" } }]]),
      "request[1]: 'name' = 'result' is taken", "request[2]: 'name' = 'approval_1' is taken")
    assert.is_nil(host.files["init.lua"] == nil or findings(wrong([[
      approvals = { { role = 'boss', prompt = '?' } }, run = tm.array, request = {
        { name = "approval_2", type = "text", prompt = "?" } }]])):find("taken", 1, true))
    finds(wrong "approvals = { { role = 'boss', prompt = '?', default = 'yes' } }, run = tm.array",
      "step 'approve_1': step: 'default' is 'yes', must be one of approved, rejected")
  end)

  it("written by hand cannot be gone past", function()
    local function hand(steps, start)
      return by_hand("APPROVAL_WORKFLOW", start or "gate", steps)
    end
    local gate = [[S { step_id = "gate", step_type = "approval", role = "boss", prompt = "?",
      next_steps = { "tell", "%s" }, conditional_logic = { approved = "tell", rejected = "%s" } },]]
    local tell = TELL:format "end"
    assert.equal("", findings(hand(gate:format("end", "end") .. tell)))
    finds(hand(gate:format("end", "tell") .. tell), "init.lua:10: error: flow 'main': pattern "
      .. "'approval_workflow': the step 'gate' leads to the same whether approved or rejected")
    local ask = [[S { step_id = "ask", step_type = "decision", next_steps = { "gate", "tell" },
      condition = function() return 1 end, conditional_logic = { a = "gate", default = "tell" } },]]
    finds(hand(ask .. gate:format("end", "end") .. tell, "ask"),
      "the step 'gate' can be gone past: a way leads to 'tell' without its approval")
    finds(hand(ask .. gate:format("ask", "ask") .. tell), "can be gone past")
    finds(hand(tell, "tell"), "there is no step of the type 'approval' that something follows")
    finds(hand(gate:format("end", "end"):gsub("role = ", "on_error = 'tell', role = ") .. tell),
      "the step 'gate' can be gone past: a way leads to 'tell' without its approval")
    finds(hand(gate:format("sorry", "sorry"):gsub("role = ", "on_error = 'sorry', role = ") .. tell
      .. [[S { step_id = "sorry", step_type = "agent_response", agent = "one", response = "Hm.",
        next_steps = { "tell" } },]]), "can be gone past")
  end)

  it("written by hand cannot be gone past to another flow either", function()
    local function hand(rejected, more)
      return ([[(function() OTHER = tm.pattern.step_by_step_process { flow_id = "buy", steps = {
        S { step_id = "t", step_type = "agent_response", agent = one, response = "Hm." } } }
        return tm.ConversationFlow { flow_id = "main", start_step = "gate",
          pattern = tm.ConversationPattern.APPROVAL_WORKFLOW, steps = {
          S { step_id = "gate", step_type = "approval", role = "boss", prompt = "?", next_steps = {
              "end", "tell" }, conditional_logic = { approved = "flow:buy", rejected = "%s" } },
          S { step_id = "tell", step_type = "agent_response", agent = one, response = "No.",
            next_steps = { "last" } }, %s } } end)()]]):format(rejected, more)
    end
    local function found(flow)
      local text = (SYSTEM:gsub("flows = { flow }", "flows = { flow, OTHER }")
        :gsub("local flow", "local OTHER local flow"))
      host = Host.new(text:format(flow))
      local lines = {}
      for _, item in ipairs(json.decode(check.run "shop").items) do
        if item.level == "error" then lines[#lines + 1] = item.text end
      end
      return table.concat(lines, "\n")
    end
    local last = [[S { step_id = "last", step_type = "agent_response", agent = one,
      response = "Bye.", next_steps = { "end" } }]]
    local past = "the step 'gate' can be gone past: a way leads to 'flow:buy' without its approval"
    assert.equal("", found(hand("tell", last)))
    assert.matches(past, found(hand("tell", [[S { step_id = "last", step_type = "subflow",
      flow = "buy", next_steps = { "end" } }]])), 1, true)
    assert.matches(past, found(hand("tell", [[S { step_id = "last", step_type = "decision",
      condition = function() return "x" end, next_steps = { "end" },
      conditional_logic = { x = "flow:buy", default = "end" } }]])), 1, true)
    assert.matches("whether approved or rejected", found(hand("flow:buy", last)), 1, true)
  end)
end)

describe("agents that work together", function()
  local function team(mode, more)
    return ([[tm.pattern.multi_agent_collaboration { flow_id = "main", mode = "%s", %s }]])
      :format(mode, more)
  end

  --- What branches say is told too, by their names; this is what came of it.
  local function last_said(turn)
    return turn.messages[#turn.messages].text
  end

  local function talk(flow, task)
    assert.equal("", findings(flow))
    load(flow)
    assert.equal("Task?", said(host:start()))
    local turn = host:send(task or "tea")
    assert.equal("completed", turn.status, turn.error and turn.error.message)
    return turn
  end

  --- One of the agents calls; the host dies before each of its rows and calls in turn. What comes
  --- of it is the same.
  local function talk_dying(flow, task, expected)
    flow = flow:gsub("agent = one, response", "agent = three, instruction")
      :gsub(', outcome = "yes"', "")
    local alive, deaths = talk(flow, task).state, 0
    assert.equal(expected, last_said(host.ended))
    while true do
      load(flow)
      host:start()
      local count = 0
      host:send(task, function()
        count = count + 1
        return count > deaths
      end)
      if count <= deaths then break end
      deaths = deaths + 1
      host:crash()
      if host.unfinished then host:resume() else host:send(task) end
      assert.same(alive, host.record.state)
      assert.equal("completed", host.record.status)
    end
    assert.is_true(deaths > 4)
  end

  local SEQUENTIAL = team("sequential", [[prompt = "Task?", participants = {
    { name = "draft", agent = one, response = "A {task}." },
    { name = "better", agent = two, response = "{draft} Hot." } }, ]])

  it("go on from each other's word", function()
    assert.equal("tea | A tea. | A tea. Hot.", said(talk(SEQUENTIAL)))
    assert.equal("A tea. Hot.", host.record.state.better)
  end)

  local DEBATE = [[prompt = "Task?", participants = {
      { name = "a", agent = one, response = "{debate.said.b|nothing}, says a" },
      { name = "b", agent = two, response = "{debate.said.a|nothing}, says b" } },
    conclusion = { agent = one, response = "{debate.said.a}; {debate.rounds.1.b}." }, %s]]

  it("debate in rounds", function()
    local text = "nothing, says b, says a; nothing, says b."
    assert.equal(text, last_said(talk(team("debate", DEBATE:format "concurrency = 2"))))
    assert.equal("task round_1 a b round_2 a b conclusion", host:path())
    talk_dying(team("debate", DEBATE:format "concurrency = 2"), "tea", text)
    talk(team("debate", DEBATE:format "rounds = 3"))
    assert.equal(3, host.record.state.debate.round)
    assert.equal(3, #host.record.state.debate.rounds)
    talk(team("debate", DEBATE:format "rounds = 1"))
    assert.equal("nothing, says b", host.record.state.debate.said.b)
  end)

  local CONSENSUS = [[prompt = "Task?", options = { "yes", "no" }, participants = {
      { name = "a", agent = one, response = "Yes.", outcome = "yes" },
      { name = "b", agent = two, response = "Hm.", outcome = function(ctx)
        return ctx.state.consensus and ctx.state.consensus.votes.a or "no" end },
      { name = "c", agent = two, response = "No.", outcome = "no" } }, %s]]

  it("speak and vote until enough of them agree", function()
    talk(team("consensus", CONSENSUS:format ""))
    assert.same({ round = 1, agreed = "no", votes = { a = "yes", b = "no", c = "no" },
      counts = { yes = 1, no = 2 }, said = { a = "Yes.", b = "Hm.", c = "No." } },
      host.record.state.consensus)
    local all = team("consensus", CONSENSUS:format [[agreement = "all", rounds = 2,
      conclusion = { agent = one, response = "{consensus.agreed|None} for {task}." },]])
    assert.equal("None for tea.", last_said(talk(all)))
    assert.same({ 2, { a = "yes", b = "yes", c = "no" } },
      { host.record.state.consensus.round, host.record.state.consensus.votes })
    talk_dying(all, "tea", "None for tea.")
    talk(team("consensus", CONSENSUS:format "agreement = 2, rounds = 1"))
    assert.equal("no", host.record.state.consensus.agreed)
  end)

  it("may abstain", function()
    local flow = team("consensus", CONSENSUS:format "rounds = 1"):gsub('outcome = "no"',
      'outcome = function() return "neither" end')
    talk(flow)
    assert.same({ { a = "yes", b = "no" }, { yes = 1, no = 1 } },
      { host.record.state.consensus.votes, host.record.state.consensus.counts })
    assert.is_nil(host.record.state.consensus.agreed)
  end)

  local MAP = [[prompt = "Task?", split = function(ctx)
      local parts = {}
      for word in ctx.state.task:gmatch "%a+" do parts[#parts + 1] = word end
      return parts
    end, participants = { { name = "a", agent = one, response = "1{part}" },
      { name = "b", agent = two, response = "2{part}" } },
    conclusion = { agent = two, response = "{results|}" }, concurrency = 2]]

  it("share the parts of a task", function()
    assert.equal("1x, 2y, 1z", last_said(talk(team("map_reduce", MAP), "x y z")))
    assert.same({ "1x", "2y", "1z" }, host.record.state.results)
    talk(team("map_reduce", MAP), "x")
    assert.same({ "1x" }, host.record.state.results)
    talk(team("map_reduce", MAP), "!")
    assert.same({}, host.record.state.results)
    talk_dying(team("map_reduce", MAP), "x y z", "1x, 2y, 1z")
  end)

  it("cannot share what is no list", function()
    for returned, text in pairs { ["{ a = 1 }"] = "split must return a list of the parts",
      ["5"] = "split must return a list of the parts", ["nil, 'no parts'"] = "no parts" } do
      load(team("map_reduce", (MAP:gsub("return parts", "return " .. returned))))
      host:start()
      assert.equal(text, host:send("x").error.message)
    end
  end)

  it("need no task of their user", function()
    local flow = SEQUENTIAL:gsub('prompt = "Task%?"', 'variables = { task = "it" }')
    load(flow)
    assert.equal("A it. | A it. Hot.", said(host:start()))
  end)

  it("are told what is wrong with them where they were called", function()
    local TWO = [[participants = { { name = "a", agent = one, response = "!" },
      { name = "b", agent = two, response = "!" } },]]
    finds(team("dialogue", TWO), "init.lua:9: error: flow 'main': multi_agent_collaboration: "
      .. "'mode' is 'dialogue', must be one of sequential, debate, consensus, map_reduce")
    finds(team("debate", TWO), "multi_agent_collaboration: 'conclusion' is missing, which the mode "
      .. "'debate' needs")
    finds(team("map_reduce", TWO), "'split' is missing", "'conclusion' is missing")
    finds(team("sequential", TWO .. "rounds = 2, split = tm.array, conclusion = {}"),
      "'rounds' does not belong to the mode 'sequential', only to consensus, debate",
      "'split' does not belong", "'conclusion' does not belong",
      "multi_agent_collaboration: conclusion: 'agent' is missing")
    finds(team("sequential", [[participants = { { name = "a", agnet = one } }]]),
      "multi_agent_collaboration: participants[1]: unknown field 'agnet'; did you mean 'agent'?",
      "'participants' must be at least two")
    finds(team("sequential", [[participants = { { name = "a", agent = one, outcome = "x" },
      { name = "a", agent = one }, { name = "task", agent = one }, { name = "1", agent = one } }]]),
      "participants[1]: 'outcome' is a vote", "participants[2]: 'name' = 'a' is taken",
      "participants[3]: 'name' = 'task' is taken", "participants[4]: 'name' = '1' is no name")
    finds(team("consensus", TWO), "'options' is missing")
    finds(team("consensus", TWO .. [[options = { "a b", "default", "c", "c" }, agreement = 3]]),
      "options[1]: 'a b' must be made of letters", "options[2]: 'default' is a word of",
      "options[4]: 'c' is there twice",
      "'agreement' must be \"all\", \"majority\" or how many of the 2")
    finds(team("consensus", [[options = { "yes", "no" }, participants = {
      { name = "a", agent = one, outcome = "yse" }, { name = "b", agent = two,
        outcome = { { contains = "x", outcome = "ja" }, default = "nein" } } },]]),
      "participants[1]: 'outcome': 'yse' is not among the options; did you mean 'yes'?",
      "participants[2]: 'outcome': 'ja' is not", "participants[2]: 'outcome': 'nein' is not")
    finds(team("consensus", TWO .. [[options = { "a" }, agreement = 1]]),
      "'options' must be at least two", "more than half must agree")
    finds(team("sequential", TWO:gsub("two", "one")), "flow 'main': pattern "
      .. "'multi_agent_collaboration': one agent alone has steps: several agents have to take part")
  end)

  it("written by hand keep what others build on", function()
    local function hand(keep, parallel)
      return by_hand("MULTI_AGENT_COLLABORATION", "first", ([[
        S { step_id = "first", step_type = "agent_response", agent = one, response = "!", %s
          next_steps = { "both" } },
        S { step_id = "both", step_type = "parallel", %s next_steps = { "tell" }, branches = {
          a = { S { step_id = "a", step_type = "agent_response", agent = two, response = "!" } },
          b = { S { step_id = "b", step_type = "action", run = function() end } } } },]])
        :format(keep, parallel) .. TELL:format "end":gsub('"one"', "two"))
    end
    assert.equal("", findings(hand([[save_as = "x",]], [[save_as = "y",]])))
    finds(hand("", [[save_as = "y",]]), "init.lua:10: error: flow 'main': pattern "
      .. "'multi_agent_collaboration': the step 'first' is followed by another agent")
    finds(hand([[save_as = "x",]], ""), "init.lua:12: error: flow 'main': pattern "
      .. "'multi_agent_collaboration': the step 'both' keeps what its branches come to under no "
      .. "name")
    finds(by_hand("MULTI_AGENT_COLLABORATION", "ask", ASK:format [[next_steps = { "end" },]]),
      "flow 'main': pattern 'multi_agent_collaboration': no agent has a step")
  end)
end)

describe("questions that are looked up", function()
  local FLOW = [[tm.pattern.database_interaction { flow_id = "main", agent = one, save_as = "row",
    query = function(ctx)
      local rows = { a = { n = 1 }, none = {}, empty = "", no = false }
      return rows[ctx.state.question]
    end, %s }]]
  local ONE = FLOW:format [[prompt = "What?", response = "{question} is {row.n}." %s]]
  local MANY = FLOW:format [[questions = {
    { name = "question", type = "text", prompt = "What?", required = true } }, %s]]
  local WRITE = [[, empty = "No {question}.", confirm = "Change {row.n}?",
    write = function(ctx) return ctx.state.row.n + 1 end, undo = function() end,
    written = "Now {result}.", stop = { "Enough" }, farewell = "See you.", again = "What else?"]]

  it("are answered, one after the other, until there are no more", function()
    local flow = ONE:format ""
    assert.equal("", findings(flow))
    load(flow)
    assert.equal("What?", said(host:start()))
    assert.equal("a | a is 1. | What?", say "a")
    for _, nothing in ipairs { "b", "none", "empty", "no" } do
      assert.equal(nothing .. " | Nothing was found. | What?", say(nothing))
    end
    assert.equal("Bye!", say "Bye!")
    assert.equal("completed", host.record.status)
  end)

  it("change something when the user has said yes to it, and keep nothing of before", function()
    local flow = ONE:format(WRITE)
    assert.equal("", findings(flow))
    load(flow)
    host:start()
    assert.equal("a | a is 1. | Change 1?", say "a")
    assert.equal("no | What else?", say "no")
    say "a"
    host:crash()
    assert.equal("yes | Now 2. | What else?", say "yes")
    assert.equal("b | No b. | What else?", say "b")
    assert.is_nil(host.record.state.row)
    assert.equal("enough | See you.", say "enough")
    assert.equal("completed", host.record.status)
  end)

  it("are told by an agent that a function makes", function()
    local flow = ONE:format "":gsub("agent = one", "agent = echo"):gsub("response", "instruction")
    assert.equal("", findings(flow))
    load(flow)
    host:start()
    assert.equal("a | a is 1. | What?", say "a")
  end)

  it("may be fields, asked once, or again where the user wants it", function()
    local once = FLOW:format [[questions = {
      { name = "wanted", type = "text", prompt = "What?", required = true },
      { name = "which", type = "text", prompt = "Which?", required = true } },
      response = "{wanted}: {row.n}"]]
    once = once:gsub("ctx.state.question", "ctx.state.which")
    assert.equal("", findings(once))
    load(once)
    host:start()
    say "tea"
    assert.equal("a | tea: 1", say "a")
    assert.equal("completed", host.record.status)
    local more = FLOW:format [[questions = {
      { name = "question", type = "text", prompt = "Which?", required = true } },
      response = "{row.n}", again = "Another?", farewell = "Bye."]]
    assert.is_truthy(findings(more):find("'question' is taken", 1, true))
    more = more:gsub('name = "question"', 'name = "wanted"'):gsub("rows%[.-%]", "rows.a")
    assert.equal("", findings(more))
    load(more)
    host:start()
    assert.equal("x | 1 | Another?", say "x")
    assert.equal("yes | Which?", say "yes")
    say "x"
    assert.equal("no | Bye.", say "no")
    assert.equal("completed", host.record.status)
  end)

  it("are told what is wrong with them where they were called", function()
    local where = "scripts/shop/init.lua:9: error: flow 'main': database_interaction: "
    finds([[tm.pattern.database_interaction { flow_id = "main" }]], where .. "'query' is missing",
      where .. "'agent' is missing")
    finds(FLOW:format "", where .. "give 'prompt', which asks for one text, or 'questions', and "
      .. "not both [fields]")
    finds(MANY:format [[prompt = "?"]], where .. "give 'prompt'",
      where .. "questions[1]: 'name' = 'question' is taken: the flow keeps something else under it")
    finds(FLOW:format [[prompt = "?", stop = {}]], "'stop' must name at least one word")
    finds(MANY:format [[stop = { "bye" }]], "'stop' are words that answer 'prompt'")
    finds(ONE:format [[, write = function() end]], "'confirm' is missing: what the user is asked "
      .. "before 'write' changes anything")
    finds(ONE:format [[, undo = function() end, confirm = "?"]], "'undo' belongs to 'write', which "
      .. "is missing", "'confirm' belongs to 'write'")
    for name, why in pairs { result = "is taken", ["a b"] = "is no name of letters" } do
      finds((ONE:format ""):gsub('"row"', '"' .. name .. '"'), ("'save_as' = '%s' %s")
        :format(name, why))
    end
  end)

  it("must be answered with what was found", function()
    finds((ONE:format ""):gsub("{row.n}", "it"), "init.lua:9: error: flow 'main': pattern "
      .. "'database_interaction': the step 'look_up' finds something as 'row', and no agent behind "
      .. "it says anything of that; name it in the prompt or response of an agent_response "
      .. "[pattern]")
    local own = FLOW:gsub("agent = one", "agent = three"):format [[prompt = "What?",
      instruction = "Say {row.n}.", farewell = "Be polite."]]
    assert.equal("", findings(own))
    load(own)
    host:start()
    assert.equal("Say 1. | What?", say "a")
    assert.equal("Nothing was found. | What?", say "b")
    assert.equal("Be polite.", say "bye")
  end)
end)

describe("a database interaction by hand", function()
  local ASK_ROW = ASK:format [[save_as = "name", next_steps = { "find" },]]
  local FIND = [[S { step_id = "find", step_type = "action", %s next_steps = { "%s" },
    run = function(ctx) return { n = 1 } end },]]
  local SAY = [[S { step_id = "say", step_type = "agent_response", agent = "one",
    response = "%s", next_steps = { "%s" } },]]
  local CHANGE = [[S { step_id = "change", step_type = "action", %s, next_steps = { "%s" },
    run = function() end },]]
  local CONFIRM = [[S { step_id = "sure", step_type = "user_input", prompt = "?", save_as = "ok",
    input_schema = { type = "boolean", required = true }, next_steps = { "change", "%s" }, %s
    conditional_logic = { condition = "%s", [true] = "change", [false] = "%s" } },]]

  local function sure(no, more, name) return CONFIRM:format(no, more or "", name or "ok", no) end
  local function hand(steps, start)
    return by_hand("DATABASE_INTERACTION", start or "ask", steps)
  end
  local function kept(onward) return FIND:format([[save_as = "row",]], onward) end
  local function changing(gate, change, say_to)
    return hand(ASK_ROW .. kept "say" .. SAY:format("{row.n}", say_to or "sure") .. gate
      .. CHANGE:format(change or "undo = function() end", "end"))
  end

  it("asks, looks up under a name, and says what was found", function()
    assert.equal("", findings(hand(ASK_ROW .. kept "say" .. SAY:format("{row.n}", "end"))))
    finds(hand(ASK_ROW .. FIND:format("", "say") .. SAY:format("Hm.", "end")), "init.lua:11: "
      .. "error: flow 'main': pattern 'database_interaction': the step 'find' keeps what it finds "
      .. "under no name; name it by save_as")
    finds(hand(ASK_ROW .. kept "say" .. SAY:format("Hm.", "end")), "the step 'find' finds "
      .. "something as 'row', and no agent behind it says anything")
    finds(hand(TELL:format "end", "tell"), "flow 'main': pattern 'database_interaction': there is "
      .. "no step of the type 'action' that looks something up")
    finds(hand(kept "say" .. SAY:format("{row.n}", "end"), "find"), "there is no user_input that "
      .. "leads to a look-up: nobody asks for anything")
    local named = SAY:format("Hm.", "end"):gsub("agent = ", "metadata = { required_context = "
      .. "{ 'row' } }, agent = ")
    assert.equal("", findings(hand(ASK_ROW .. kept "say" .. named)))
  end)

  it("changes nothing that nobody has said yes to", function()
    assert.equal("", findings(changing(sure("end", "", "ok"))))
    assert.equal("", findings(changing(sure("end", "", "ok"), "irreversible = true")))
    assert.equal("", findings(changing("", "irreversible = false", "change")))
    finds(changing("", nil, "change"), "init.lua:13: error: flow 'main': pattern "
      .. "'database_interaction': the step 'change' changes data (it has undo), and nobody has to "
      .. "say yes to it on the way ask, find, say, change; let a user_input of the type 'boolean' "
      .. "or 'choice', or an approval, branch before it [pattern]")
    finds(changing("", "irreversible = true", "change"), "changes data (it is irreversible)")
    finds(changing(sure("change", "", "ok")), "on the way ask, find, say, sure, change")
    finds(changing(sure("end", "", "name")), "nobody has to say yes")
    finds(changing(sure("end", "on_error = 'change',", "ok")), "nobody has to say yes")
    finds(changing(sure("end", "on_no_input = { { after = 5, go = 'change' } },", "ok")),
      "nobody has to say yes")
    finds(changing(sure("end", "on_no_match = { { go = 'change' } },", "ok")),
      "nobody has to say yes")
  end)

  it("takes a choice, a no that leads on, or an approval as a yes", function()
    assert.equal("", findings(changing([[S { step_id = "sure", step_type = "user_input",
      prompt = "?", save_as = "ok", next_steps = { "change", "end" }, input_schema = {
        type = "choice", options = { "Change it", "Leave it" } }, conditional_logic = {
        condition = function(ctx) return ctx.output == "Leave it" and "leave" or "change" end,
        leave = "end", default = "change" } },]])))
    assert.equal("", findings(changing([[S { step_id = "sure", step_type = "user_input",
      prompt = "Shall I leave it?", save_as = "leave", next_steps = { "end", "change" },
      input_schema = { type = "boolean", required = true },
      conditional_logic = { condition = "leave", [true] = "end", [false] = "change" } },]])))
    assert.equal("", findings(changing([[S { step_id = "sure", step_type = "approval",
      role = "boss", prompt = "?", next_steps = { "change", "end" },
      conditional_logic = { approved = "change", rejected = "end" } },]])))
  end)

  it("asks each time, and also for what branches change", function()
    local function round(no, to)
      return hand(ASK_ROW .. kept "say" .. SAY:format("{row.n}", "sure") .. sure(no)
        .. CHANGE:format("undo = function() end", "more") .. ([[S { step_id = "more",
          step_type = "user_input", prompt = "More?", save_as = "name",
          input_schema = { type = "text" }, next_steps = { "%s", "end" }, conditional_logic = {
            condition = function() return "x" end, x = "%s", default = "end" } },]])
            :format(to, to))
    end
    assert.equal("", findings(round("more", "find")))
    finds(round("end", "change"), "nobody has to say yes to it on the way more, …, change")
    finds(round("more", "change"), "on the way ask, find, say, sure, change")
    local both = [[S { step_id = "change", step_type = "parallel", next_steps = { "end" },
      branches = { a = { S { step_id = "do_it", step_type = "action", irreversible = true,
        run = function() end } } } },]]
    finds(hand(ASK_ROW .. kept "say" .. SAY:format("{row.n}", "change") .. both), "the step "
      .. "'change' changes data (a step of its branches does)")
  end)
end)
