-- As many coroutines as there is memory for.
-- expect: failed script.cpu|script.memory
return function()
  local all = {}
  while true do all[#all + 1] = coroutine.create(error) end
end
