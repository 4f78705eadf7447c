-- require out of the folder.
-- expect: refused script.invalid attack.lua:3
local module = require("../neighbour/init")
