-- One text as large as the step's memory allows.
-- expect: completed
return function(ctx)
  ctx.state.big = ("x"):rep(900000)
end
