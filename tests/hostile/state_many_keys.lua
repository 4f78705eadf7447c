-- Eight thousand keys, to be sorted and encoded in C.
-- expect: completed
return function(ctx)
  for i = 1, 8000 do ctx.state["k" .. i] = i end
end
