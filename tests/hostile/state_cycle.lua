-- A state that contains itself.
-- expect: failed state.invalid
return function(ctx)
  ctx.state.self = ctx.state
end
