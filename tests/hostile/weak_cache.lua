-- Weak tables of weak tables, for the collector to work at.
-- expect: failed script.error __mode is not available
return function()
  local all = {}
  for i = 1, 1e9 do all[i] = setmetatable({ [{}] = {} }, { __mode = "k" }) end
end
