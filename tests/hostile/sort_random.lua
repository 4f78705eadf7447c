-- A comparator that tosses coins.
-- expect: failed script.error invalid order function
return function(ctx)
  local list = {}
  for i = 1, 300 do list[i] = i end
  local flip = false
  table.sort(list, function()
    flip = not flip
    return flip or ctx:random(2) == 1
  end)
end
