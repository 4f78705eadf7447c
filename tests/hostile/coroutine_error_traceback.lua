-- A long traceback from a deep coroutine, again and again.
-- expect: failed script.cpu
return function()
  local function deep(n) if n == 0 then error("x") end deep(n - 1) return n end
  while true do coroutine.resume(coroutine.create(deep), 150) end
end
