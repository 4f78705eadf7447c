-- Something else in the place of ctx.state.
-- expect: failed state.invalid
return function(ctx)
  ctx.state = setmetatable({}, { __index = function() while true do end end })
end
