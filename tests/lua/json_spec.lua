require "tests.lua.helper"
local json = require "host.json"

describe("host.json", function()
  it("keeps what it reads, byte for byte", function()
    for _, text in ipairs {
      '{"a":[],"b":{},"c":null,"d":[1,2.5,-0.0,1e+300]}',
      "[9223372036854775807,-9223372036854775808]",
      '"\\u0000é€\\n"', "true", "0.1", "1.0", "[[[]]]",
    } do
      assert.are.equal(text, json.encode(json.decode(text)))
    end
  end)

  it("sorts keys by their bytes", function()
    assert.are.equal('{"B":1,"a":2,"ab":3,"é":4}', json.encode { ab = 3, ["é"] = 4, B = 1, a = 2 })
  end)

  it("tells arrays from objects", function()
    assert.are.equal("{}", json.encode {})
    assert.are.equal("[]", json.encode(json.array()))
    assert.are.equal("[[],{}]", json.encode { json.array {}, {} })
    assert.is_true(json.is_array(json.decode "[]"))
    assert.is_false(json.is_array {})
    assert.is_false(getmetatable(json.array()))
  end)

  it("refuses with the key path", function()
    local text, err = json.encode { cart = { { price = 1 }, { price = 0 / 0 } } }
    assert.is_nil(text)
    assert.are.equal("value.cart[2].price: NaN cannot be kept", tostring(err))
    assert.are.equal("json.value", err.code)
  end)

  it("has one null", function()
    assert.are.equal(json.null, json.decode "null")
    assert.are.equal("null", tostring(json.null))
    assert.are.equal("null", json.encode(json.null))
  end)

  it("takes raw text as it is", function()
    assert.are.equal('{"a":{"z":1,"b":2}}', json.encode { a = json.raw '{"z":1,"b":2}' })
  end)
end)
