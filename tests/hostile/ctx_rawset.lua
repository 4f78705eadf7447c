-- rawset into ctx: what it is for this step alone.
-- expect: completed nil
return function(ctx)
  local before = rawget(ctx, "leaked")
  pcall(rawset, ctx, "leaked", "secret")
  return tostring(before)
end
