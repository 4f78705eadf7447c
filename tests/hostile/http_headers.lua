-- A thousand headers.
-- expect: failed script.error headers
return function(ctx)
  local headers = {}
  for i = 1, 1000 do headers["X-" .. i] = "x" end
  return ctx:http { url = ctx.session.metadata.silent, headers = headers }
end
