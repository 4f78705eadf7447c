-- A file that requires itself, through another one.
-- expect: refused script.invalid requires itself
return require("init")
