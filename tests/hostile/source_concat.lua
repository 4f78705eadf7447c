-- An expression of concatenations, right associative: the parser recurses.
-- as: source
-- expect: refused script.invalid attack.lua
return "return " .. ("'x' .. "):rep(100000) .. "'y'"
