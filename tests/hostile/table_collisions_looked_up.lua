-- Looking for keys that all fall on one place.
-- expect: failed script.cpu
return function()
  local t, step = {}, (1 << 15) - 1
  for i = 1, 1 << 13 do t[i * step] = true end
  t[-5] = true
  for i = (1 << 13) + 1, 1 << 14 do t[i * step] = true end
  local k = (1 << 15) * step
  while true do local _ = t[k], t[k], t[k], t[k], t[k], t[k], t[k], t[k], t[k], t[k], t[k], t[k] end
end
