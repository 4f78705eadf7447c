-- A body of a megabyte to a server that does not read it.
-- expect: failed http.timeout
return function(ctx)
  local s = ("x"):rep(1 << 20)
  return ctx:http { url = ctx.session.metadata.silent, method = "POST", body = s, timeout = 0.3 }
end
