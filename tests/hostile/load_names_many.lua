-- Thousands of misspelt names, each of which wants its nearest known one.
-- as: init
-- expect: refused script.invalid unknown field
local tm = require "tidemill"
local t = { flows = {}, agents = {} }
for i = 1, 3000 do t["unknown_field_with_a_long_name_" .. i] = i end
return tm.system(t)
