-- Tables in tables in tables.
-- as: source
-- expect: refused script.invalid attack.lua:1
return "return " .. ("{"):rep(50000) .. ("}"):rep(50000)
