-- Coroutines whose __close closes the next one, each from deep within C.
-- expect: failed script.error overflow
return function()
  local function deep(n, f)
    if n == 0 then return f() end
    return (("x"):gsub("x", function() deep(n - 1, f) end))
  end
  local coroutines = {}
  for i = 1, 400 do
    coroutines[i] = coroutine.create(function()
      local _ <close> = setmetatable({}, { __close = function()
        local following = coroutines[i + 1]
        if following then deep(40, function() assert(coroutine.close(following)) end) end
      end })
      coroutine.yield()
    end)
    coroutine.resume(coroutines[i])
  end
  assert(coroutine.close(coroutines[1]))
end
