-- The handler of the limit's own error never returns.
-- expect: failed script.cpu attack.lua:5
return function()
  xpcall(
    function() while true do end end,
    function() while true do end end)
end
