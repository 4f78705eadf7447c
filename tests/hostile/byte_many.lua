-- A long text as single numbers.
-- expect: failed script.error attack.lua:4
return function()
  return ("x"):rep(1 << 20):byte(1, -1)
end
