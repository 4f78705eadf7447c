-- NUL in a key.
-- expect: failed state.invalid
return function(ctx)
  ctx.state["a\0b"] = 1
end
