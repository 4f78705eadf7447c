-- A yield where the step itself runs would stop the turn.
-- expect: failed script.error only a coroutine of your own
return function()
  coroutine.yield("stuck")
end
