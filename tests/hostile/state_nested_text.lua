-- A state whose text lies deep in it: reading it back passes the text once for each level.
-- expect: failed script.cpu
return function(ctx)
  local t = { ('"'):rep(900 * 1000) }
  for _ = 1, 58 do t = { t } end
  ctx.state.t = t
end
