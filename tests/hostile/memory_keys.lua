-- A hash of texts that never ends.
-- expect: failed script.memory
return function()
  local t = {}
  for i = 1, 1e9 do t[("key "):rep(100) .. i] = true end
end
