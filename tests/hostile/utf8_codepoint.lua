-- All code points of a long text at once.
-- expect: failed script.error attack.lua:4
return function()
  return utf8.codepoint(("x"):rep(1 << 20), 1, -1)
end
