-- A yield from within gsub, where nothing can be yielded.
-- expect: failed script.error
return function()
  local co = coroutine.wrap(function() return ("x"):gsub("x", coroutine.yield) end)
  return co()
end
