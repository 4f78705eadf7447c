-- The same by table.move.
-- expect: failed script.cpu
return function()
  local t, step = {}, (1 << 16) - 1
  for i = 1, 1 << 15 do table.move({ true }, 1, 1, i * step, t) end
  table.move({ true }, 1, 1, -5, t)
end
