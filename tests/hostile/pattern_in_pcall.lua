-- The matcher's error is caught, and it is tried again for ever.
-- expect: failed script.cpu attack.lua:5
return function()
  while true do
    pcall(string.find, ("a"):rep(1000), ("a-"):rep(9) .. "b")
  end
end
