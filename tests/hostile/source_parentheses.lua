-- Thousands of parentheses: the parser's own stack.
-- as: source
-- expect: refused script.invalid attack.lua:1
return "return " .. ("("):rep(50000) .. "1" .. (")"):rep(50000)
