-- A text of an exabyte.
-- expect: failed script.error attack.lua:4
return function()
  local s = ("x"):rep(1000000000000000000)
  return s
end
