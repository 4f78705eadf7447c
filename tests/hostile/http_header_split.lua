-- A header that carries another one.
-- expect: failed script.error control characters
return function(ctx)
  return ctx:http { url = ctx.session.metadata.silent, headers = { A = "b\r\nHost: evil" } }
end
