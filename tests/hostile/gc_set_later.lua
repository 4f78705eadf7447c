-- The finalizer is put into the metatable after it was set: Lua marks objects only when it is set.
-- expect: completed nothing ran
return function()
  local ran = false
  for i = 1, 2000 do
    local meta = {}
    local _ = setmetatable({ i }, meta)
    meta.__gc = function() ran = true while true do end end
  end
  local waste = {}
  for i = 1, 20000 do waste[i % 10] = { i } end
  return ran and "it ran" or "nothing ran"
end
