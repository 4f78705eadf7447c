-- require of an absolute path.
-- expect: refused script.invalid attack.lua:3
local module = require("/etc/hostname")
