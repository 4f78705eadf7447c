-- NUL in the middle of a file.
-- as: source
-- expect: refused script.invalid
return "return function() end\0 while true do end"
