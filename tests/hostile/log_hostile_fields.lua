-- Fields whose values do things when they are shown.
-- expect: failed script.cpu
return function(ctx)
  ctx:log("info", "x", { f = setmetatable({}, { __index = function() while true do end end,
    __len = function() while true do end end }) })
end
