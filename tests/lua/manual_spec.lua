-- The manual, lua/meta/tidemill.lua and lua/meta/tidemill/, names exactly what a script may
-- write and call.
require "tests.lua.fake_host"
local fields = require "tidemill.fields"
local schema = require "tidemill.schema"

--- The files of the manual, one after the other.
local function read_manual()
  local texts = {}
  for path in io.popen("ls lua/meta/tidemill.lua lua/meta/tidemill/*.lua"):lines() do
    local file <close> = assert(io.open(path))
    texts[#texts + 1] = file:read("a")
  end
  return table.concat(texts)
end

local text = read_manual()

--- The fields of each class in the manual.
local function documented_classes()
  local classes, current = {}, nil
  for line in text:gmatch("[^\n]*") do
    local class = line:match("^%-%-%-@class ([%w_.]+)")
    local field = line:match("^%-%-%-@field ([%w_]+)")
    if class then
      classes[class], current = {}, class
    elseif field then
      classes[current][field] = true
    end
  end
  return classes
end

local classes = documented_classes()

local function merged(...)
  local all = {}
  for _, t in ipairs { ... } do
    for name in pairs(t) do all[name] = true end
  end
  return all
end

local function supported(known)
  local names = {}
  for name, field in pairs(known) do
    if not field.unsupported and not field.host then names[name] = true end
  end
  return names
end

describe("the manual", function()
  it("names every field that works, and no other", function()
    for class, known in pairs {
      ["tm.System"] = fields.system, ["tm.AssistantAgent"] = fields.assistant,
      ["tm.Settings"] = fields.settings, ["tm.Step"] = fields.step,
      ["tm.Metadata"] = fields.metadata, ["tm.ConditionalLogic"] = fields.conditional_logic,
      ["tm.OutcomeRule"] = fields.outcome, ["tm.Orchestrator"] = fields.orchestrator,
      ["tm.Option"] = fields.option,
      ["tm.Review"] = fields.review,
      ["tm.Interrupt"] = fields.interrupt,
      ["tm.NoMatchRung"] = fields.no_match_rung,
      ["tm.NoInputRung"] = fields.no_input_rung,
      ["tm.ErrorConfig"] = fields.error_config,
      ["tm.FallbackResponses"] = fields.fallback_responses,
      ["tm.PerformanceConfig"] = fields.performance_config,
      ["tm.PersistenceConfig"] = fields.persistence_config,
    } do
      local documented = supported(known)
      assert.same(schema.sorted_keys(documented), schema.sorted_keys(classes[class]), class)
    end
    assert.same(schema.sorted_keys(supported(fields.flow)),
      schema.sorted_keys(merged(classes["tm.AnyFlow"], classes["tm.Flow"])))
    assert.same(schema.sorted_keys(supported(fields.field)),
      schema.sorted_keys(merged(classes["tm.Input"], classes["tm.Field"])))
    assert.same(schema.sorted_keys(supported(fields.input_schema)),
      schema.sorted_keys(merged(classes["tm.Input"], classes["tm.InputSchema"])))
  end)

  it("names every builder of a pattern and its fields, and no other", function()
    local pattern, builders = require "tidemill.pattern", {}
    for name, class in text:gmatch("\n%-%-%-@field ([%w_]+) fun%(given: ([%w.]+)%): tm.Flow") do
      builders[name] = class
    end
    assert.same(schema.sorted_keys(pattern.builders), schema.sorted_keys(builders))
    for name, class in pairs(builders) do
      assert.same(schema.sorted_keys(supported(pattern.fields(name))),
        schema.sorted_keys(merged(classes["tm.AnyFlow"], classes[class])), class)
    end
    local tree = require "tidemill.pattern.decision_tree"
    local approval = require "tidemill.pattern.approval_workflow"
    local collaboration = require "tidemill.pattern.multi_agent_collaboration"
    for class, known in pairs { ["tm.Participant"] = collaboration.participant_fields,
      ["tm.Conclusion"] = collaboration.conclusion_fields, ["tm.TreeNode"] = tree.node_fields,
      ["tm.TreeOption"] = tree.option_fields, ["tm.ApprovalOf"] = approval.approval_fields } do
      assert.same(schema.sorted_keys(known), schema.sorted_keys(classes[class]), class)
    end
  end)

  it("names every function and value of `tm`, and no other", function()
    local documented, real = {}, {}
    for name in text:gmatch("\nfunction tm%.([%w_]+)%(") do documented[name] = true end
    for name in text:gmatch("\ntm%.([%w_]+) = ") do documented[name] = true end
    for name in pairs(require "tidemill") do real[name] = true end
    assert.same(schema.sorted_keys(real), schema.sorted_keys(documented))
  end)

  it("names everything of ctx", function()
    local context = require "tidemill.context"
    local run = { seq = 1, attempt = 1, started = 5, conversation_id = "c", state = {}, input = "x",
      session = { id = "s", user_id = "u", metadata = {} }, system = { name = "x",
        config_view = {} } }
    local ctx = context.reader(run, { step_id = "a" }, "a test")
    local real = { output = true }
    for name in pairs(ctx) do real[name] = true end
    assert.same(schema.sorted_keys(real), schema.sorted_keys(classes["tm.Context"]))
    for name in text:gmatch("\nfunction ctx:([%w_]+)%(") do
      assert.equal("function", type(ctx[name]), name)
    end
  end)

  it("names the fields of a request", function()
    local outside = io.open("lua/tidemill/outside.lua"):read("a")
    local real = {}
    local known = outside:match("local REQUEST = (%b{})")
    for name in known:gmatch("([%w_]+) = 1") do real[name] = true end
    assert.same(schema.sorted_keys(real), schema.sorted_keys(classes["tm.HttpRequest"]))
  end)
end)
