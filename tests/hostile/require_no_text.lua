-- require of a table that shows itself for ever.
-- expect: refused script.cpu
return require(setmetatable({}, { __tostring = function() while true do end end }))
