-- Names that all fall on one place when the table grows.
-- expect: failed script.cpu
return function()
  local t, step = {}, (1 << 16) - 1
  for i = 1, 1 << 15 do t[i * step] = true end
  t[-5] = true
end
