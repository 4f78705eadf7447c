-- A hash of texts that never ends.
-- expect: failed script.memory
return function()
  local t = {}
  for i = 1, 1e9 do t["key " .. i] = true end
end
