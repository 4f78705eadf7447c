-- A field of ctx that does not exist.
-- expect: failed script.error cannot be set
return function(ctx)
  ctx.leaked = 1
end
