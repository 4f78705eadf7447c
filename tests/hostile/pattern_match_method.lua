-- The same through a method of a text.
-- expect: failed script.cpu attack.lua:4
return function()
  return (("a"):rep(5000)):match(("a*"):rep(8) .. "b")
end
