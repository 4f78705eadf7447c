-- ctx has no metatable that could be had or set.
-- expect: failed script.error protected
return function(ctx)
  setmetatable(ctx, {})
end
