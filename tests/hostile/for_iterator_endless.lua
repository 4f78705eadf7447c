-- A generic for over an iterator that never ends.
-- expect: failed script.cpu
return function()
  for _ in function() return 1 end do end
end
