-- An error at load that shows itself for ever.
-- expect: refused script.cpu
error(setmetatable({}, { __tostring = function() while true do end end }))
