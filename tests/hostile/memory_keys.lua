-- A hash of texts that never ends.
-- expect: failed script.cpu|script.memory
return function()
  local t = {}
  for i = 1, 1e9 do t[("key "):rep(2000) .. i] = true end
end
