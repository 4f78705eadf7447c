-- NaN and infinities.
-- expect: failed state.invalid ctx.state.n
return function(ctx)
  ctx.state.n = 0 / 0
end
