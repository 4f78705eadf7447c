-- A line of a megabyte that is no Lua: the message must stay short.
-- as: source
-- expect: refused script.invalid attack.lua:1
return ("x"):rep(1000000)
