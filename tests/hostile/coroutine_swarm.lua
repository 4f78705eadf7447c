-- Coroutine upon coroutine, each of which spins as soon as it runs.
-- expect: failed script.cpu attack.lua:5
return function()
  local function spin()
    while true do end
  end
  while true do coroutine.resume(coroutine.create(spin)) end
end
