-- A coroutine that another conversation began, resumed by this one.
-- expect: completed
local co
return function(ctx)
  co = co or coroutine.create(function(first)
    while true do coroutine.yield(first.conversation_id == ctx.conversation_id) end
  end)
  local ok, same = coroutine.resume(co, ctx)
  return tostring(ok) .. type(same)
end
