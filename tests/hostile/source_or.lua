-- A list of `or`: the parser follows all of it at each one, and no hook runs in there.
-- as: source
-- expect: refused script.cpu init.lua:
return "local a local x = a" .. (" or a"):rep(200000) .. " return function() end"
