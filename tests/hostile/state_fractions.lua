-- Very many fractions in the state; moving them there takes few instructions.
-- expect: failed script.cpu
return function(ctx)
  local t, n = {}, 1000
  for i = 1, n do t[i] = i / 7 * 1e-200 end
  while n < 250000 do
    table.move(t, 1, n, n + 1)
    n = n * 2
  end
  ctx.state.t = t
end
