-- Lengths whose product overflows.
-- expect: failed script.error attack.lua:4
return function()
  local s = ("xx"):rep(math.maxinteger // 2 + 2, ("y"):rep(16))
  return s
end
