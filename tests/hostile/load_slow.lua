-- Loading takes nearly all of its time: conversations of others must not wait for it.
-- expect: completed
for _ = 1, 12000000 do end
return function() return "loaded" end
