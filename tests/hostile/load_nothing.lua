-- A file that returns nothing.
-- expect: refused script.invalid init.lua
local _
