-- A loop by goto.
-- expect: failed script.cpu attack.lua:4
return function()
  ::again:: goto again
end
