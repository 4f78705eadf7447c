-- The limit's error is caught and the loop begins again.
-- expect: failed script.cpu attack.lua:5
return function()
  while true do
    pcall(function() while true do end end)
  end
end
