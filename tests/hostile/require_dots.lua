-- The same with dots, which stand for slashes.
-- expect: refused script.invalid attack.lua:3
local module = require("...neighbour.init")
