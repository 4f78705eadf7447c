-- A list with a hole of a billion.
-- expect: failed state.invalid
return function(ctx)
  ctx.state.list = { [1] = 1, [1000000000] = 2 }
end
