-- The handler of an error never returns.
-- expect: failed script.cpu attack.lua:4
return function()
  xpcall(error, function() while true do end end)
end
