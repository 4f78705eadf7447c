-- What the host raised, caught and changed into what no row could keep.
-- expect: failed emit.no_webhook
return function(ctx)
  local ok, err = pcall(ctx.emit, ctx, "told")
  assert(not ok)
  err.message, err.turn, err.status = "\255\254", true, "corrupt"
  err.traceback = ("x"):rep(1 << 20)
  error(err)
end
