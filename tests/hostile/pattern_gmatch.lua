-- An iterator whose single step never ends.
-- expect: failed script.cpu attack.lua:5
return function()
  local n = 0
  for _ in ("x"):rep(4000):gmatch((".-"):rep(12) .. "y") do n = n + 1 end
  return n
end
