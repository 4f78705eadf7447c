-- A metatable that hides its __gc from rawget by another metatable.
-- expect: completed nothing ran
return function()
  local ran = false
  local meta = setmetatable({}, { __index = { __gc = function() ran = true end } })
  for _ = 1, 2000 do setmetatable({}, meta) end
  local waste = {}
  for i = 1, 20000 do waste[i % 10] = { i } end
  return ran and "it ran" or "nothing ran"
end
