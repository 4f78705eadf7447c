-- Names that all fall on one place when the table grows the last time, made at load.
-- as: init
-- expect: refused script.cpu limits.load_time
local t, step = {}, (1 << 18) - 1
for i = 1, (1 << 17) + 1 do t[i * step] = true end
return t
