-- The state of another conversation, kept in an upvalue, is a table without effect.
-- expect: completed clean
local kept
return function(ctx)
  if kept then kept.leaked = "secret" end
  kept = ctx.state
  return ctx.state.leaked or "clean"
end
