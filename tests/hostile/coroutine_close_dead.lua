-- A coroutine that a limit stopped is closed by a later turn: its __close loops.
-- expect: failed script.cpu
local left
return function()
  if left then coroutine.close(left) end
  left = coroutine.create(function()
    local _ <close> = setmetatable({}, { __close = function() while true do end end })
    while true do end
  end)
  coroutine.resume(left)
end
