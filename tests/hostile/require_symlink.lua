-- A link out of the folder.
-- link: outside.lua /etc/passwd
-- expect: refused script.invalid attack.lua:4
local module = require("outside")
