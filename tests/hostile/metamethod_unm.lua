-- Arithmetic that recurses.
-- expect: failed script.error overflow
return function()
  local meta = {}
  meta.__unm = function(t) return -t end
  return -setmetatable({}, meta)
end
