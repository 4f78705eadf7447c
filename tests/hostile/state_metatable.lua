-- A state with metamethods: what is kept must not depend on them.
-- expect: failed state.invalid
return function(ctx)
  ctx.state.t = setmetatable({}, { __index = error, __pairs = function() while true do end end,
    __len = function() while true do end end })
end
