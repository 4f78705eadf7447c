-- Two coroutines that hand over to each other, each with little to do.
-- expect: failed script.cpu
return function()
  local function play()
    while true do coroutine.yield() end
  end
  local a, b = coroutine.wrap(play), coroutine.wrap(play)
  while true do
    a()
    b()
  end
end
