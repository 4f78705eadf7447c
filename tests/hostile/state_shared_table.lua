-- One table in a thousand places: a few bytes that encode to gigabytes.
-- expect: failed state.invalid 8 MiB
return function(ctx)
  local t = ("x"):rep(1000)
  for _ = 1, 40 do t = { t, t } end
  ctx.state.t = t
end
