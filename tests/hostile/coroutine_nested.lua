-- Coroutines within coroutines: each takes C stack.
-- expect: failed script.error overflow
return function()
  local function nest() return coroutine.wrap(nest)() end
  return nest()
end
