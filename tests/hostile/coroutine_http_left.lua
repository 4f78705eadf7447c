-- A coroutine waits for an answer; the step that began it does not.
-- expect: completed
return function(ctx)
  local co = coroutine.create(function() return ctx:http { url = "http://127.0.0.1:1/" } end)
  coroutine.resume(co)
  return "gone"
end
