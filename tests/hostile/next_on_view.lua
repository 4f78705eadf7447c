-- next and pairs on ctx and on read-only tables.
-- expect: completed
return function(ctx)
  local names = {}
  for name in next, ctx do names[#names + 1] = name end
  return #names .. tostring(next(string)) .. tostring(rawlen(ctx))
end
