require "tests.lua.helper"
local text = require "host.text"

describe("host.text", function()
  it("counts characters", function()
    assert.are.equal(5, text.length "naïve")
    assert.are.equal(0, text.length "")
    assert.is_false(text.valid "\xff")
    assert.has_error(function() text.length "\xff" end)
  end)

  it("lowers Latin, Greek and Cyrillic", function()
    assert.are.equal("äöüß žłœ αβγς привет ѓ", text.lower "ÄÖÜß ŽŁŒ ΑΒΓς ПРИВЕТ Ѓ")
    assert.are.equal("日本 123", text.lower "日本 123")
  end)

  it("trims white space of any kind", function()
    assert.are.equal("a b", text.trim "  \t a b\u{a0}\u{3000}\n")
    assert.are.equal("", text.trim " \n ")
  end)

  it("cuts by characters as string.sub does by bytes", function()
    local letters = "abcde"
    for i = -7, 7 do
      assert.are.equal(letters:sub(i), text.sub(letters, i))
      for j = -7, 7 do
        assert.are.equal(letters:sub(i, j), text.sub(letters, i, j))
      end
    end
    assert.are.equal("ïv", text.sub("naïve", 3, 4))
  end)

  it("measures how far apart two names are", function()
    assert.are.equal(0, text.distance("prompt", "prompt"))
    assert.are.equal(1, text.distance("promt", "prompt"))
    assert.are.equal(1, text.distance("porompt", "prompt"))
    assert.are.equal(1, text.distance("rpompt", "prompt"))
    assert.are.equal(3, text.distance("kitten", "sitting"))
    assert.are.equal(2, text.distance("né", ""))
    assert.are.equal(1000, text.distance(("x"):rep(1000), "x"))
  end)
end)
