-- What a system says of its orchestrator about tenants and about what is the host's: accepted where
-- the host does it, refused with file, system and the key to set where it does not.
local Host = require "tests.lua.fake_host"
local system = require "tidemill.system"

local function script(orchestrator)
  return (Host.script([[ConversationStep { step_id = "last", step_type = "agent_response",
    agent = clerk, response = "Bye", next_steps = { "end" } },]],
    'start_step = "last",'):gsub("return tm.system {",
    "local orchestrator = tm.ConversationOrchestrator { " .. orchestrator .. " }\n"
      .. "%0 orchestrator = orchestrator,"))
end

local function findings(orchestrator, config)
  Host.new(script(orchestrator), config)
  local _, found = system.load "shop"
  local lines = {}
  for i, item in ipairs(found.items) do
    lines[i] = ("%s:%d: %s: %s [%s]"):format(item.file, item.line, item.level, item.text, item.rule)
  end
  return table.concat(lines, "\n")
end

local PLACE = "scripts/shop/init.lua:5: error: system 'shop': orchestrator"

describe("tenant_isolation", function()
  local BOTH = { "tenant_isolation = %s", "persistence_config = { tenant_isolation = %s }" }

  it("is the host's: who demands it is loaded only where it is", function()
    for _, form in ipairs(BOTH) do
      local text = findings(form:format "true", { isolates = false })
      assert.equal(PLACE, text:sub(1, #PLACE))
      assert.matches("'tenant_isolation' demands what this host does not do", text, 1, true)
      assert.matches("set tenants.isolation: true in agent_config.yaml", text, 1, true)
      assert.is_nil(text:find "\n")
      assert.equal("", findings(form:format "true", { isolates = true }))
    end
  end)

  it("takes nothing back", function()
    for _, isolates in ipairs { true, false } do
      for _, form in ipairs(BOTH) do
        assert.equal("", findings(form:format "false", { isolates = isolates }))
      end
    end
    local one = "tenant_isolation = false, persistence_config = { tenant_isolation = true }"
    assert.matches("persistence_config: 'tenant_isolation' demands", findings(one, {}), 1, true)
    assert.matches("'tenant_isolation' must be true or false, not 1",
      findings("tenant_isolation = 1", { isolates = true }), 1, true)
  end)
end)

describe("tenant_id", function()
  local function owner(orchestrator)
    return Host.new(script(orchestrator)):load().tenant_id
  end

  it("is described for the host, in whichever place it stands", function()
    assert.equal("acme", owner 'tenant_id = "acme"')
    assert.equal("acme", owner 'session_config = { tenant_id = "acme" }')
    assert.equal("acme", owner 'tenant_id = "acme", session_config = { tenant_id = "acme" }')
    assert.equal("Bäckerei Süß", owner 'tenant_id = "Bäckerei Süß"')
    assert.is_nil(owner "session_config = {}")
  end)

  it("is one, and the name of a tenant", function()
    local text = findings 'tenant_id = "acme", session_config = { tenant_id = "umbrella" }'
    assert.equal(PLACE, text:sub(1, #PLACE))
    assert.matches("'tenant_id' is 'acme', but that of session_config is 'umbrella'", text, 1, true)
    for _, bad in ipairs { '""', '"a\\nb"', '"a\\0b"', '("x"):rep(65)' } do
      for _, form in ipairs { "tenant_id = %s", "session_config = { tenant_id = %s }" } do
        assert.matches("'tenant_id' must be a tenant: 1 to 64 bytes", findings(form:format(bad)), 1,
          true, bad)
      end
    end
    assert.matches("'tenant_id' must be a text, not 5", findings "tenant_id = 5", 1, true)
    assert.matches("'tenant_id' must be a text", findings 'tenant_id = "\\xff"', 1, true)
    assert.matches("'tenant_id' must be a text",
      findings 'tenant_id = 5, session_config = { tenant_id = "x" }', 1, true)
  end)
end)

describe("what is the host's", function()
  local KEYS = {
    backend = { '"sqlite"', "workflow_persistence.backend" },
    database_path = { '"./a.db"', "workflow_persistence.sqlite.database_path" },
    state_directory = { '"./states"', "workflow_persistence.file.storage_directory" },
    redis_host = { '"localhost"', "workflow_persistence.redis.host" },
    redis_port = { "6379", "workflow_persistence.redis.port" },
    redis_db = { "2", "workflow_persistence.redis.db" },
    session_ttl = { "3600", "workflow_persistence.retention.session_ttl" },
    encryption_key = { '"s3cret"', "workflow_persistence.general.encryption_key" },
  }

  it("is refused, with the key of agent_config.yaml that says it", function()
    for name, key in pairs(KEYS) do
      local text = findings(("persistence_config = { %s = %s }"):format(name, key[1]),
        { isolates = true })
      local place = PLACE .. (".persistence_config: '%s' "):format(name)
      assert.equal(place, text:sub(1, #place))
      assert.matches("set " .. key[2], text, 1, true)
      assert.matches("in agent_config.yaml", text, 1, true)
      assert.matches("leave it out here [fields]", text, 1, true)
      assert.is_nil(text:find "\n")
      assert.is_nil(text:find "not supported yet")
    end
  end)

  it("is no secret of a script, and no finding tells it", function()
    for _, form in ipairs { "%s", "persistence_config = { %s }" } do
      local text = findings(form:format 'encryption_key = "s3cret"')
      assert.matches("'encryption_key' does not belong into a script", text, 1, true)
      assert.matches("set workflow_persistence.general.encryption_key in agent", text, 1, true)
      assert.is_nil(text:find("s3cret", 1, true))
    end
  end)

  it("is told for the whole of the guide's example at once", function()
    local text = findings([[persistence_config = { backend = "sqlite",
      database_path = "./tenant_data/acme/workflow_state.db", tenant_isolation = true,
      encryption = true, encryption_key = "s3cret" },
      session_config = { tenant_id = "acme", session_prefix = "tenant_acme_", quota_limits = {
        max_sessions_per_tenant = 100, max_steps_per_session = 1000,
        rate_limit_per_minute = 60 } }]],
      { can_seal = true })
    for _, key in ipairs { "workflow_persistence.backend",
      "workflow_persistence.sqlite.database_path",
      "workflow_persistence.general.encryption_key", "tenants.isolation: true" } do
      assert.matches("set " .. key, text, 1, true)
    end
    assert.equal(4, select(2, text:gsub("%[fields%]", "")))
  end)
end)

describe("quota_limits", function()
  local function rules(orchestrator)
    return Host.new(script(orchestrator)):load().session_config
  end

  it("may stand in the orchestrator, in its session_config, or in parts in both", function()
    local whole = { tenant_most = 100, steps_most = 1000, rate_most = 60 }
    assert.same(whole, rules [[quota_limits = { max_sessions_per_tenant = 100,
      max_steps_per_session = 1000, rate_limit_per_minute = 60 }]])
    assert.same(whole, rules [[session_config = { quota_limits = { max_sessions_per_tenant = 100,
      max_steps_per_session = 1000, rate_limit_per_minute = 60 } }]])
    assert.same(whole, rules [[quota_limits = { max_sessions_per_tenant = 100,
      rate_limit_per_minute = 60 }, session_config = { quota_limits = {
        max_steps_per_session = 1000, rate_limit_per_minute = 60 } }]])
    assert.same({ rate_most = 0 }, rules "quota_limits = { rate_limit_per_minute = 0 }")
  end)

  it("say nothing twice in two ways", function()
    assert.equal(PLACE .. ".quota_limits: 'max_steps_per_session' is 5, but in "
      .. "session_config.quota_limits it is 6; give it once [fields]",
      findings [[quota_limits = { max_steps_per_session = 5 },
        session_config = { quota_limits = { max_steps_per_session = 6 } }]])
    assert.matches("orchestrator.quota_limits: 'rate_limit_per_minute' must be at least 0",
      findings "quota_limits = { rate_limit_per_minute = -1 }", 1, true)
    assert.matches("orchestrator.quota_limits: unknown field 'max_step'",
      findings "quota_limits = { max_step = 1 }", 1, true)
    assert.matches("'quota_limits' must be a table, not 5", findings "quota_limits = 5", 1, true)
  end)
end)
