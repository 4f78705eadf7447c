-- %s of a long text, in ever longer results.
-- expect: failed script.cpu|script.memory
return function()
  local s = ("x"):rep(100000)
  for _ = 1, 1000 do
    s = ("%s%s"):format(s, s)
  end
end
