-- The same, and each level catches the overflow and tries again.
-- expect: failed script.cpu
return function()
  local function nest()
    pcall(coroutine.wrap(nest))
    return pcall(coroutine.wrap(nest))
  end
  return nest()
end
