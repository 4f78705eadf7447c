-- Loading a system: every field known, unknown ones with the nearest known one, what is not
-- supported yet refused, every reference checked, and as many findings at once as can be had.
local Host = require "tests.lua.fake_host"
local system = require "tidemill.system"

local function findings_of(files, config)
  Host.new(files, config)
  local _, findings = system.load "shop"
  return findings.items
end

local function text_of(items)
  local lines = {}
  for i, item in ipairs(items) do
    lines[i] = ("%s:%d: %s: %s [%s]"):format(item.file, item.line, item.level, item.text, item.rule)
  end
  return table.concat(lines, "\n")
end

local END = [[ConversationStep { step_id = "last", step_type = "agent_response", agent = clerk,
  response = "Bye", next_steps = { "end" } },]]

local function step_findings(step, flow, before, extra)
  return text_of(findings_of(Host.script(step .. "\n" .. END,
    flow or 'start_step = "last",', before, extra)))
end

local function one(expected, ...)
  local text = step_findings(...)
  assert.matches(expected, text, 1, true)
  assert.is_nil(text:find("\n"), "more than one finding:\n" .. text)
end

local function ask(fields)
  return ('ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?",\n'
    .. 'input_schema = { type = "text" }, next_steps = { "last" }, %s },'):format(fields)
end

local function action(fields)
  return ('ConversationStep { step_id = "act", step_type = "action", next_steps = { "last" },\n'
    .. 'run = function() end, %s },'):format(fields)
end

describe("a good system", function()
  it("has no findings and is described", function()
    local host = Host.new(Host.script(END, [[start_step = "last", name = "Main", end_steps = {},
      pattern = tm.ConversationPattern.STEP_BY_STEP_PROCESS,]]))
    local described = host:load()
    assert.same({ name = "clerk", user_id = "clerk", type = "assistant", provider = "offline" },
      described.agents[1])
    local flow = described.flows[1]
    assert.same({ "main", "Main", "step_by_step_process", "last" },
      { flow.flow_id, flow.name, flow.pattern, flow.start_step })
    assert.same({ step_id = "last", step_type = "agent_response", agent = "clerk",
      next_steps = { "end" } }, { step_id = flow.steps[1].step_id,
      step_type = flow.steps[1].step_type, agent = flow.steps[1].agent,
      next_steps = { flow.steps[1].next_steps[1] } })
  end)

  it("may be spread over files of its folder", function()
    local host = Host.new {
      ["init.lua"] = [[
        local tm = require "tidemill"
        return tm.system { agents = require "agents", flows = { require "flows.main" } }]],
      ["agents.lua"] = [[
        local tm = require "tidemill"
        return { clerk = tm.AssistantAgent.create_simple { user_id = "c" } }]],
      ["flows/main/init.lua"] = [[
        local tm = require "tidemill"
        return tm.ConversationFlow { flow_id = "main", start_step = "a", steps = {
          tm.ConversationStep { step_id = "a", step_type = "agent_response", response = "Hi",
            agent = require("agents").clerk, next_steps = { "end" } } } }]],
    }
    assert.equal("c", host:load().agents[1].user_id)
    assert.same({ "init.lua", "agents.lua", "flows/main/init.lua" }, system.loaded("shop").files)
  end)

  it("accepts what means what the host does anyway", function()
    assert.equal("", step_findings(action [[metadata = { decision_point = true,
      requires_specialist = true, potential_loop_back = true, allows_multiple_iterations = true,
      solution_type = "direct", step_category = "x",
      custom = { a = { 1, 2 } }, allows_partial_completion = false }]], [[start_step = "last",
      settings = { enable_rollback = false, allow_step_skipping = false,
        cache_agent_responses = false, lazy_load_agents = false, compress_state = false,
        encrypt_sensitive_data = false, parallel_validation = true, resume_on_failure = false,
        allow_early_termination = false, interaction_timeout = "30m", max_retries = 2,
        retry_delay = 0.5, persist_state = true, auto_checkpoint = true,
          checkpoint_interval = 0 },]]))
  end)
end)

describe("a flow that seals what it stores", function()
  it("needs a key", function()
    local script = Host.script(END,
      'start_step = "last", settings = { encrypt_sensitive_data = true },')
    local text = text_of(findings_of(script))
    assert.matches("flow 'main': what it stores has to be sealed", text, 1, true)
    assert.matches("openssl rand -base64 32", text, 1, true)
    assert.matches("workflow_persistence.general.encryption_key [fields]", text, 1, true)
    assert.equal("", text_of(findings_of(script, { can_seal = true })))
    assert.matches("has to be sealed", text_of(findings_of(Host.script(END, 'start_step = "last",'),
      { seal = true })), 1, true)
  end)
end)

describe("an unknown field", function()
  it("is named with its line, its step and the nearest known one", function()
    one("scripts/shop/init.lua:8: error: flow 'main', step 'ask': step: unknown field 'savs_as'; "
      .. "did you mean 'save_as'? [fields]", ask 'savs_as = "x"', nil, "\n")
    one("step 'ask': metadata: unknown field 'step_categry'; did you mean 'step_category'?",
      ask 'metadata = { step_categry = "x" }')
    one("settings: unknown field 'max_retry'; did you mean 'max_retries'?", "",
      'start_step = "last", settings = { max_retry = 3 },')
    one("flow 'main': flow: unknown field 'end_step'; did you mean 'end_steps'?", "",
      'start_step = "last", end_step = {},')
    one("input_schema: input: unknown field 'maxlength'; did you mean 'max_length'?",
      (ask(""):gsub('type = "text"', '%0, maxlength = 5')))
  end)
end)

describe("metadata", function()
  it("belongs to the steps that it says something about", function()
    one("metadata.allows_partial_completion belongs to an input_schema of the type 'structured'",
      ask "metadata = { allows_partial_completion = true }")
    one("'satisfaction_survey' does not belong to 'action', only to user_input",
      action "metadata = { satisfaction_survey = true }")
    one("'metadata.expected_duration' and 'metadata.processing_time' mean the same; give one",
      ask "metadata = { expected_duration = 1, processing_time = 1 }")
    one("'expected_duration' must be a duration", ask "metadata = { expected_duration = -1 }")
  end)
end)

describe("what is not supported yet", function()
  it("is refused, field by field", function()
    for _, field in ipairs { 'extract = {}', 'sensitive = true', 'tools = {}', 'query = {}' } do
      local text = step_findings(ask(field))
      assert.matches("not supported yet", text, 1, true, field)
      assert.matches("[unsupported]", text, 1, true, field)
    end
    one("'max_rollback_steps' needs enable_rollback = true", "",
      'start_step = "last", settings = { max_rollback_steps = 5 },')
    assert.matches("not supported yet", step_findings(ask "question = '?'"), 1, true)
    for _, setting in ipairs { "cache_agent_responses = true" } do
      one("not supported yet", "", ('start_step = "last", settings = { %s },'):format(setting))
    end
    for _, kind in ipairs { "database_query" } do
      assert.matches(("'step_type' = '%s' is not supported yet"):format(kind), step_findings(
        ('ConversationStep { step_id = "x", step_type = "%s", next_steps = { "last" } },')
          :format(kind)),
        1, true)
    end
  end)

  it("is refused in agents and the orchestrator", function()
    one("DatabaseAgent is not supported yet", "", nil, nil,
      ', orders = tm.DatabaseAgent { user_id = "db", database = "orders" }')
    one("'temperature' is not supported yet", "", nil, nil,
      ', other = AssistantAgent { user_id = "x", temperature = 0.5 }')
    local function orchestrated(fields)
      return text_of(findings_of((Host.script(END,
        'start_step = "last",'):gsub("return tm.system {",
        "%0 orchestrator = tm.ConversationOrchestrator { " .. fields .. " },"))))
    end
    assert.equal("", orchestrated [[session_config = { default_timeout = 60,
      concurrency = "reject" },
      error_config = { max_retries = 1, retry_delay = 1, auto_recovery = false },
      persistence_config = { auto_checkpoint = false, checkpoint_interval = 5, auto_save = false },
      performance_config = { step_timeout = 9, parallel_execution = true }]])
    for _, field in ipairs { "memory_manager = {}",
      "session_config = { quota_limits = { max_tokens = 5 } }",
      "quota_limits = { max_tokens = 5 }" } do
      assert.matches("not supported yet", orchestrated(field), 1, true, field)
    end
    assert.matches("'merg', must be one of queue, reject, merge, interrupt",
      orchestrated 'session_config = { concurrency = "merg" }', 1, true)
    assert.matches("error_config: unknown field 'max_retry'; did you mean 'max_retries'",
      orchestrated "error_config = { max_retry = 1 }", 1, true)
    assert.matches("fallback_responses: unknown field 'agent_errors'; did you mean 'agent_error'?",
      orchestrated 'error_config = { fallback_responses = { agent_errors = "x" } }', 1, true)
    assert.matches("performance_config: 'max_workflow_duration' must be a duration",
      orchestrated "performance_config = { max_workflow_duration = 'soon' }", 1, true)
    assert.matches("error_config.fallback_responses: 'agent_error' must be a text, not 5",
      orchestrated "error_config = { fallback_responses = { agent_error = 5 } }", 1, true)
    assert.matches("'resume_on_failure' must be true or false", step_findings("",
      'start_step = "last", settings = { resume_on_failure = 1 },'), 1, true)
  end)

  it("does not concern sessions, whose rules are described for the host", function()
    local text = Host.script(END, 'start_step = "last",'):gsub("return tm.system {", [[%0
      orchestrator = tm.ConversationOrchestrator { session_config = {
        idle_session_timeout = "30m", session_cleanup_interval = 60, max_concurrent_sessions = 5,
        session_prefix = "shop_", quota_limits = {
          max_sessions_per_tenant = 2, max_steps_per_session = 70,
          rate_limit_per_minute = 9 } } },]])
    assert.same({ idle_ms = 1800000, look_ms = 60000, most = 5, prefix = "shop_", tenant_most = 2,
      steps_most = 70, rate_most = 9 },
      Host.new(text):load().session_config)
    assert.is_nil(Host.new(Host.script(END, 'start_step = "last",')):load().session_config)
  end)

  it("is refused as a provider of the configuration", function()
    local items = findings_of(Host.script(END, 'start_step = "last",'),
      { llm = { provider = "openai" } })
    assert.matches("the provider 'openai' (llm.provider of agent_config.yaml) is not supported yet",
      items[1].text, 1, true)
  end)

  it("is refused for names that extract would fill", function()
    one("'budget' would have to be filled by 'extract'",
      ask 'metadata = { data_collection = { "answer", "budget" } }')
  end)
end)

describe("wrong values", function()
  it("are refused with what was expected", function()
    one("'max_retries' must be an integer, not 1.5", action "max_retries = 1.5")
    one("'max_retries' must be at least 0", action "max_retries = -1")
    one("'retry_delay' must be a duration (seconds, or a text such as \"30m\"), not 'soon'",
      action 'retry_delay = "soon"')
    one("'save_as': 'a b' is no name", action 'save_as = "a b"')
    one("'checkpoint': '1st' is no name of letters, digits and _", ask 'checkpoint = "1st"')
    one("'checkpoint' does not belong to 'action'", action 'checkpoint = "a"')
    one("the 'checkpoint' of a wait belongs to 'event'", [[ConversationStep { step_id = "x",
      step_type = "wait", seconds = 5, checkpoint = "a", next_steps = { "last" } },]])
    one("'run' does not belong to 'user_input', only to action", ask "run = error")
    one("'max_retries' does not belong to 'user_input'", ask "max_retries = 3")
    one("'prompt': '{' is never closed", ask 'prompt = "Hi {name"')
    one("'timeout' and 'metadata.timeout' mean the same",
      ask "timeout = 5, metadata = { timeout = 5 }")
    one("'step_type' is 'user_inptu', must be one of", [[ConversationStep { step_id = "x",
      step_type = "user_inptu", next_steps = { "last" } },]])
    one("must be a ConversationStep", '"text",')
    one("step_id is reserved", (action(""):gsub('"act"', '"end"')))
    one("step_id must be made of letters", (action(""):gsub('"act"', '"a b"')))
    one("this step_id is there twice", (action(""):gsub('"act"', '"last"')))
    one("'outcome' is used by conditional_logic with classify = true only",
      [[ConversationStep { step_id = "x", step_type = "agent_response", agent = clerk,
        next_steps = { "last" }, outcome = "a" },]])
    one("'response' is what an offline agent answers; 'bot' answers itself",
      [[ConversationStep { step_id = "x", step_type = "agent_response", agent = "bot",
        next_steps = { "last" }, response = "a" },]], nil, nil,
      ", bot = { respond = function() end }")
  end)

  it("of variables are refused", function()
    one("variables.n: the default is no integer", "", [[start_step = "last",
      variables = { n = { type = "integer", default = "one" } },]])
    one("variables.n: unknown type 'interger'; did you mean 'integer'", "", [[start_step = "last",
      variables = { n = { type = "interger" } },]])
    one("variables: f: a function cannot be kept", "",
      'start_step = "last", variables = { f = print2 },',
      "local print2 = function() end")
    one("variables: 'a b' is no name", "", 'start_step = "last", variables = { ["a b"] = 1 },')
  end)
end)

describe("references", function()
  it("to agents must exist", function()
    one("there is no agent 'clrek'; did you mean 'clerk'? [agents]",
      [[ConversationStep { step_id = "x", step_type = "agent_response", agent = "clrek",
        next_steps = { "last" } },]])
    one("'agent' is not one of the system's agents",
      [[ConversationStep { step_id = "x", step_type = "agent_response", next_steps = { "last" },
        agent = AssistantAgent { user_id = "stranger" } },]])
    one("an agent_response needs an 'agent'",
      'ConversationStep { step_id = "x", step_type = "agent_response", next_steps = { "last" } },')
    one("agent 'x': must be an AssistantAgent", "", nil, nil, ", x = {}")
  end)

  it("to steps must exist, and branches stay within next_steps", function()
    one("start_step: there is no step 'lst'; did you mean 'last'? [targets]", "",
      'start_step = "lst",')
    one("end_steps: there is no step 'lasst'", "", 'start_step = "last", end_steps = { "lasst" },')
    one("next_steps: there is no step 'lsat'; did you mean 'last'?",
      (action(""):gsub('"last"', '"lsat"')))
    one("on_error: there is no step 'nowhere'", action 'on_error = "nowhere"')
    one("on_error: a step cannot be its own way out", action 'on_error = "act"')
    one("conditional_logic, 'x': 'act' is not among next_steps",
      action 'conditional_logic = { condition = "n", x = "act", default = "last" }')
    one("conditional_logic needs a 'condition'", action 'conditional_logic = { x = "last" }')
    one("'next_steps' is missing", (action(""):gsub('next_steps = { "last" },', "")))
    one("a decision needs a 'condition'", [[ConversationStep { step_id = "x",
      step_type = "decision", next_steps = { "last" } },]])
    one("outcome: 'lst' is not among the outcomes of conditional_logic; did you mean 'last'",
      [[ConversationStep { step_id = "x", step_type = "agent_response", agent = clerk,
        outcome = "lst",
        next_steps = { "last" }, conditional_logic = { classify = true, last = "last" } },]])
  end)
end)

describe("a script that fails", function()
  it("is one finding with file and line", function()
    assert.equal("scripts/shop/init.lua:2: error: syntax error near 'is' [script]",
      text_of(findings_of("local x = 1\nthis is no Lua")))
    assert.equal("scripts/shop/init.lua:3: error: boom [script]",
      text_of(findings_of("local x = 1\n\nerror('boom')")))
    assert.matches("scripts/shop/agents.lua:2: error:", text_of(findings_of {
      ["init.lua"] = "require 'agents'", ["agents.lua"] = "\nlocal x <" }), 1, true)
    for _, name in ipairs { "ConversationStep", "AssistantAgent",
      "AssistantAgent.create_simple" } do
      assert.matches("^scripts/shop/init.lua:3: error: %w+ needs a table: ", text_of(findings_of(
        ("local tm = require 'tidemill'\n\nlocal x = tm.%s 'text'"):format(name))))
    end
    assert.matches("init.lua must return tm.system", text_of(findings_of("return 5")), 1, true)
    assert.matches("there is no module 'init'", text_of(findings_of({})), 1, true)
    assert.matches("^scripts/shop/init.lua:2: error: tidemill has no 'AssistentAgent'; "
      .. "did you mean 'AssistantAgent'", text_of(findings_of(
        "local tm = require 'tidemill'\nlocal x = tm.AssistentAgent { }")))
    assert.matches("init.lua:2: error: ConversationPattern has no 'SIMPLE_CHATS'; did you mean "
      .. "'SIMPLE_CHAT'", text_of(findings_of(
        "local tm = require 'tidemill'\nlocal x = tm.ConversationPattern.SIMPLE_CHATS")), 1, true)
    assert.matches("init.lua:2: error: pattern has no 'database_interactions'; did you mean "
      .. "'database_interaction'", text_of(findings_of(
      "local tm = require 'tidemill'\nlocal x = tm.pattern.database_interactions { }")), 1, true)
  end)

  it("may raise anything, and is told what and where", function()
    for code, what in pairs { ["error()"] = "a nil was raised",
      ["error({})"] = "a table was raised", ["error(print2)"] = "a function was raised",
      ["error(setmetatable({}, { __tostring = function() error 'x' end }))"] = "a table was",
    } do
      local text = text_of(findings_of("local print2 = function() end\n\n" .. code))
      assert.matches("error: " .. what, text, 1, true)
      assert.matches("raised at scripts/shop/init.lua:3", text, 1, true)
    end
  end)

  it("says why a file cannot be read, also when it was tried before", function()
    assert.matches("init.lua:1: error: require: big.lua has more than 1 MiB",
      text_of(findings_of { ["init.lua"] = "local x = require 'big'\nreturn x",
        ["big.lua"] = { code = "file.too_large", message = "big.lua has more than 1 MiB" } }), 1,
      true)
    assert.matches("scripts/shop/bad.lua:1: error: ", text_of(findings_of {
      ["init.lua"] = "pcall(require, 'bad')\nlocal x = require 'bad'\nreturn x",
      ["bad.lua"] = "error('broken')" }), 1, true)
  end)

  it("is told about an outcome that is there twice, and what of its data is not plain", function()
    one("outcome '1' is there twice", action [[conditional_logic = { default = "last",
      condition = "x", [1] = "last", ["1"] = "last" }]])
    one("metadata: 'custom' cannot be kept: value.a[1]: a function cannot be kept",
      action "metadata = { custom = { a = { error } } }")
  end)

  it("names its agents by words", function()
    assert.matches("agents: the key '?' must be made of letters", text_of(findings_of((Host.script(
      END, 'start_step = "last",', nil, ", ['\\255'] = { respond = function() end }")))), 1, true)
  end)

  it("raises when it is opened for turns, with the first finding and how many more", function()
    local host = Host.new(Host.script(ask 'a1 = 1, b2 = 2' .. END, 'start_step = "last",'))
    local ok, err = pcall(host.load, host)
    assert.is_false(ok)
    assert.equal("script.invalid", err.code)
    assert.matches("^scripts/shop/init.lua:7: flow 'main', step 'ask': step: unknown field 'a1'",
      err.message)
    assert.matches("and 1 more; `tidemill check` lists them all", err.message, 1, true)
  end)

  it("reports many things at once", function()
    local text = step_findings(ask 'a1 = 1' .. action 'max_retries = "x"',
      'start_step = "nowhere",')
    for _, expected in ipairs { "'a1'", "'max_retries'", "start_step" } do
      assert.matches(expected, text, 1, true)
    end
  end)

  it("says what a step that waits needs", function()
    local function waits(kind, fields)
      return ('ConversationStep { step_id = "w", step_type = "%s", next_steps = { "last" }, %s },')
        :format(kind, fields)
    end
    one("an approval needs a 'prompt'", waits("approval", 'role = "r"'))
    one("'role' is missing", waits("approval", 'prompt = "?"'))
    one("'default' needs a 'timeout'",
      waits("approval", 'role = "r", prompt = "?", default = "approved"'))
    one("'approval' has no outcome 'accepted'", waits("approval", [[role = "r", prompt = "?",
      conditional_logic = { accepted = "last" }]]))
    one("its outcomes are event and timeout", waits("wait", [[event = "e",
      conditional_logic = { condition = "x", event = "last" }]]))
    one("needs one of 'seconds', 'until_time' and 'event'", waits("wait", ""))
    one("needs one of 'seconds', 'until_time' and 'event'",
      waits("wait", 'seconds = 5, event = "e"'))
    one("the 'timeout' of a wait belongs to 'event'", waits("wait", "seconds = 5, timeout = 5"))
    one("'until_time' must be milliseconds since 1970", waits("wait", 'until_time = "5m"'))
    one("'max_retries' does not belong to 'wait'", waits("wait", "seconds = 5, max_retries = 1"))
  end)

  it("says what is wrong with a ladder", function()
    one("'on_no_match' needs at least one rung", ask "on_no_match = {}")
    one("on_no_match, 1: 'go' is missing", ask "on_no_match = { {} }")
    one("on_no_match: there is no step 'helpp'", ask 'on_no_match = { { go = "helpp" } }')
    one("on_no_match, 2: the rung before it leaves the prompt",
      ask 'on_no_match = { { go = "last" }, "x" }')
    one("on_no_input, 1: give one of 'say', 'go' and 'close'",
      ask "on_no_input = { { after = 5 } }")
    one("on_no_input, 1: 'after' must be more than 0",
      ask 'on_no_input = { { after = 0, go = "last" } }')
    one("on_no_input, 2: 'after' counts from the prompt",
      ask 'on_no_input = { { after = 5, say = "?" }, { after = 5, close = true } }')
    one("'on_no_input' and 'timeout' mean the same",
      ask 'on_no_input = { { after = 5, close = true } }, timeout = 5')
    one("'on_no_input' and settings.interaction_timeout mean the same", "",
      'start_step = "last", on_no_input = { { after = 5, close = true } },'
        .. 'settings = { interaction_timeout = 5 },')
    one("flow 'main': on_no_input: there is no step 'helpp'", "",
      'start_step = "last", on_no_input = { { after = 5, go = "helpp" } },')
  end)

  it("keeps its file's name however long that is", function()
    local origin = require "tidemill.origin"
    local long = "scripts/" .. ("deep/"):rep(20) .. "init.lua"
    origin.add_chunk(long)
    local fn = load("error('x')", "@" .. long)
    local _, message = pcall(fn)
    assert.equal(long, origin.full_name(message:match("^(.-):1:")))
    assert.equal("other.lua", origin.full_name("other.lua"))
  end)

  it("is blamed at the line that makes the system", function()
    local items = findings_of("local tm = require 'tidemill'\n\nreturn tm.system {\n agentz = {} }")
    assert.same({ "scripts/shop/init.lua", 3 }, { items[1].file, items[1].line })
  end)

  it("must be named as its folder", function()
    local items = findings_of((Host.script(END, 'start_step = "last",')
      :gsub("return tm.system {", '%0 name = "other",')))
    assert.matches("its name is 'other' but its folder is 'shop'", items[1].text, 1, true)
  end)
end)
