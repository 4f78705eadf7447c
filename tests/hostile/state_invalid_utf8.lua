-- Bytes that are no UTF-8, in a value and in a key.
-- expect: failed state.invalid
return function(ctx)
  ctx.state["\255\254"] = "\237\160\128"
end
