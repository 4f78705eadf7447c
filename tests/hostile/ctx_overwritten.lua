-- Fields of ctx that exist can be overwritten for this step, and for nobody else.
-- expect: completed default
return function(ctx)
  ctx.conversation_id, ctx.now, ctx.step, ctx.session = "other", -1, nil, nil
  return "default"
end
