-- require of the runtime's insides.
-- expect: refused script.invalid attack.lua:3
local module = require("tidemill.task")
