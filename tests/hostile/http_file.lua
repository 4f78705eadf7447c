-- Other protocols than http.
-- expect: failed script.error must begin with http
return function(ctx)
  return ctx:http { url = "file:///etc/passwd" }
end
