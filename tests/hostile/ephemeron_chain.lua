-- Weak tables that keep each other's keys alive, in no order: each round finds the next few.
-- expect: failed script.error __mode is not available
return function()
  local mode, keys, tables = { __mode = "k" }, {}, {}
  for i = 1, 6001 do keys[i] = {} end
  for i = 1, 6000 do
    local at = i * 3571 % 6000 + 1
    tables[i] = setmetatable({ [keys[at]] = keys[at + 1] }, mode)
  end
  local first = keys[1]
  keys = nil
  while first do pcall(string.rep, "x", 1000000) end
end
