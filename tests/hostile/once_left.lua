-- Functions of ctx:once that are left in their midst: by a yield, an error, a coroutine's end.
-- expect: completed 2 refused, then 3
return function(ctx)
  local refused = 0
  local co = coroutine.create(function() ctx:once("a", coroutine.yield) end)
  coroutine.resume(co)
  if not pcall(ctx.uuid, ctx) then refused = refused + 1 end
  coroutine.close(co)
  if not pcall(ctx.once, ctx, "b", error) then refused = refused + 1 end
  return refused .. " refused, then " .. ctx:once("a", function() return 3 end)
end
