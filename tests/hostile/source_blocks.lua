-- Blocks in blocks.
-- as: source
-- expect: refused script.invalid attack.lua:1
return ("do "):rep(50000) .. ("end "):rep(50000)
