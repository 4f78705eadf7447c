-- The session's metadata are a copy.
-- expect: completed nil
return function(ctx)
  local before = ctx.session.metadata.leaked
  ctx.session.metadata.leaked, ctx.session.user_id = "secret", "root"
  return tostring(before)
end
