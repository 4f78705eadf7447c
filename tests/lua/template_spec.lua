-- Templates: what they name, what they print, and that nothing unknown is printed raw.
require "tests.lua.helper"
local json = require "host.json"
local template = require "tidemill.template"

local scope = {
  state = { name = "Ada", order = { id = 7, total = 12.5, tags = { "a", "b" },
    lines = { { n = 1 } } },
    none = json.null, yes = true, user_id = nil },
  session = { id = "s1", user_id = "u1", metadata = { tier = "gold" } },
  config = { shop = "Mill", name = "shadowed", limits = { days = 14 } },
}

local function render(source)
  return template.render(assert(template.compile(source)), scope)
end

local function refused(source)
  local ok, err = pcall(render, source)
  assert.is_false(ok)
  return err
end

describe("a template", function()
  it("prints names from state, then session, then config", function()
    assert.equal("Ada at Mill", render "{name} at {shop}")
    assert.equal("7 gold u1 s1 14", render("{order.id} {session.metadata.tier} {user_id} "
      .. "{session_id} {config.limits.days}"))
    assert.equal("shadowed", render "{config.name}")
    assert.equal("a b", render "{order.tags.1} {order.tags.2}")
  end)

  it("prints values as people read them", function()
    assert.equal("12.5 true a, b", render "{order.total} {yes} {order.tags}")
    assert.equal('[{"n":1}]', render "{order.lines}")
    assert.equal("[]", render "[{none}]")
  end)

  it("takes the default for what is unknown or null", function()
    assert.equal("you, nothing, , a|b",
      render "{nobody|you}, {none|nothing}, {nobody|}, {nobody|a|b}")
  end)

  it("prints a brace for {{", function()
    assert.equal("{name} is {Ada}", render "{{name} is {{{name}}")
  end)

  it("fails on an unknown name, naming it", function()
    local err = refused "Dear {nobody}"
    assert.equal("template.unknown_name", err.code)
    assert.is_false(err.retryable)
    assert.matches("{nobody}", err.message, 1, true)
    assert.equal("template.unknown_name", refused("{order.id.deeper}").code)
  end)

  it("lists its names for check", function()
    local compiled = template.compile "Hi {name}, {a.b|none} {{no}"
    assert.equal("Hi {name}, {a.b|none} {{no}", compiled.text)
    assert.same({ { name = "name", path = { "name" } },
      { name = "a.b", path = { "a", "b" }, default = "none" } }, compiled.names)
  end)

  it("refuses bad syntax at compile time", function()
    for source, problem in pairs {
      ["Hi {name"] = "never closed", ["{two words}"] = "not a name", ["{}"] = "not a name",
      ["{a..b}"] = "not a name", ["{1a}"] = "not a name", ["{a.}"] = "not a name",
    } do
      local compiled, why = template.compile(source)
      assert.is_nil(compiled)
      assert.matches(problem, why, 1, true)
    end
  end)
end)
