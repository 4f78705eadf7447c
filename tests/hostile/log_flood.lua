-- As many lines in the log as time allows.
-- expect: failed script.cpu
return function(ctx)
  while true do ctx:log(("x"):rep(600)) end
end
