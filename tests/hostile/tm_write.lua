-- The functions of tidemill itself.
-- expect: refused script.invalid cannot be set
local tm = require "tidemill"
tm.system = function() return {} end
