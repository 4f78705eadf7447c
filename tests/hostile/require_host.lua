-- require of the host's own modules.
-- expect: refused script.invalid attack.lua:3
local module = require("host.journal")
