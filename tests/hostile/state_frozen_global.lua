-- A frozen global in the place of ctx.state: what the step returns must not get into it.
-- expect: completed "nobody was here"
Defaults = { greeting = "hello" }
return function(ctx)
  local found = Defaults.output
  ctx.state = Defaults
  return found and "somebody was here" or "nobody was here"
end
