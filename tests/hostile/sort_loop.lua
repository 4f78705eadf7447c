-- A comparator that never returns.
-- expect: failed script.cpu attack.lua:4
return function()
  table.sort({ 3, 2, 1 }, function() while true do end end)
end
