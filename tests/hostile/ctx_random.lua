-- Ranges that overflow, are empty or are no numbers.
-- expect: completed 5 refused
return function(ctx)
  local refused = 0
  for _, range in ipairs { { 2, 1 }, { math.mininteger, math.maxinteger }, { 0 / 0 }, { 1.5, 2 },
    { "1", {} } } do
    if not pcall(ctx.random, ctx, range[1], range[2]) then refused = refused + 1 end
  end
  return refused .. " refused"
end
