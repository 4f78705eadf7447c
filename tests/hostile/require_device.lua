-- A link to a file that never ends.
-- link: endless.lua /dev/zero
-- expect: refused script.invalid attack.lua:4
local module = require("endless")
