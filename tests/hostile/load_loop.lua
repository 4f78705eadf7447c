-- A file that never comes to its end.
-- expect: refused script.cpu attack.lua:3
while true do end
