-- A loop without end.
-- expect: failed script.cpu attack.lua:4
return function()
  while true do end
end
