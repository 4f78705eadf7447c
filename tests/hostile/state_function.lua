-- A function in the state.
-- expect: failed state.invalid ctx.state.f
return function(ctx)
  ctx.state.f = error
end
