-- Nested deeper than 64.
-- expect: failed state.invalid
return function(ctx)
  local t = {}
  for _ = 1, 1000 do t = { t } end
  ctx.state.deep = t
end
