-- Methods of ctx with something else as self.
-- expect: failed script.error
return function(ctx)
  ctx.log({ state = {} }, "x")
end
