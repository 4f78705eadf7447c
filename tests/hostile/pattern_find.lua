-- A pattern that backtracks for ever: lazy repetitions of "any" before what is not there.
-- expect: failed script.cpu attack.lua:4
return function()
  return string.find(("a"):rep(3000), (".-"):rep(20) .. "b")
end
