-- A generator that never ends.
-- expect: failed script.cpu
return function()
  local n = 0
  for _ in coroutine.wrap(function() while true do coroutine.yield(1) end end) do n = n + 1 end
  return n
end
