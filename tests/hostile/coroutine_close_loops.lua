-- coroutine.close runs a __close that never returns.
-- expect: failed script.cpu attack.lua:6
return function()
  local co = coroutine.create(function()
    local _ <close> = setmetatable({}, { __close = function()
      while true do end
    end })
    coroutine.yield()
  end)
  coroutine.resume(co)
  coroutine.close(co)
end
