-- A wrapped coroutine that a limit stopped is called again by a later turn, which closes it.
-- expect: failed script.cpu
local left
return function()
  if left then pcall(left) end
  left = coroutine.wrap(function()
    local _ <close> = setmetatable({}, { __close = function() while true do end end })
    while true do end
  end)
  left()
end
