-- A file of many megabytes.
-- as: source
-- expect: refused script.invalid
return "return function() return " .. ("1 +\n"):rep(3000000) .. "1 end"
