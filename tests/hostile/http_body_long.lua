-- A request with a body of 30 MB that the system keeps, of which a digest is made, late in a slice.
-- expect: failed http.timeout|script.cpu
local BODY = ("x"):rep(30 * 1000 * 1000)

return function(ctx)
  local n = 0
  for _ = 1, 600000 do n = n + 1 end
  return ctx:http { url = ctx.session.metadata.silent, method = "POST", body = BODY, timeout = 0.3 }
end
