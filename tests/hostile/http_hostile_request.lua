-- A request that is not a plain table.
-- expect: failed script.cpu attack.lua:4
return function(ctx)
  return ctx:http(setmetatable({}, { __pairs = function() while true do end end }))
end
