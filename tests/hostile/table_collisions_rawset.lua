-- The same by rawset.
-- expect: failed script.cpu
return function()
  local t, step = {}, (1 << 16) - 1
  for i = 1, 1 << 15 do rawset(t, i * step, true) end
  rawset(t, -5, true)
end
