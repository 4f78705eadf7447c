-- require of what is no file of the folder.
-- expect: refused script.invalid attack.lua:3
local module = require("io")
