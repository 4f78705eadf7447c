-- A file that is bytecode.
-- as: source
-- expect: refused script.invalid attack.lua
return string.dump(function() return 1 end)
