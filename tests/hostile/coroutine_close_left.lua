-- A suspended coroutine with a looping __close is left behind for the collector.
-- expect: completed left
return function()
  for _ = 1, 100 do
    coroutine.wrap(function()
      local _ <close> = setmetatable({}, { __close = function() while true do end end })
      coroutine.yield()
    end)()
  end
  return "left"
end
