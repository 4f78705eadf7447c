-- The limit at load, caught for ever.
-- expect: refused script.cpu attack.lua:3
while true do pcall(function() while true do end end) end
