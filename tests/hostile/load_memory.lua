-- A file that takes all memory.
-- expect: refused script.cpu|script.memory attack.lua:4
local t = {}
while true do t[#t + 1] = {} end
