-- A name that ends early for C.
-- expect: refused script.invalid attack.lua:3
local module = require("attack\0x")
