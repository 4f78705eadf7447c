-- %q of a text of control characters, each of which becomes four.
-- expect: failed script.cpu|script.memory
return function()
  local s = ("\1"):rep(1000000)
  for _ = 1, 10 do
    s = ("%q"):format(s)
  end
  return #s
end
