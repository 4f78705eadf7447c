-- A few tables that encode to gigabytes.
-- expect: failed script.error 8 MiB
return function(ctx)
  local t = ("x"):rep(1000)
  for _ = 1, 40 do t = { t, t } end
  return ctx:http { url = ctx.session.metadata.silent, method = "POST", json = t }
end
