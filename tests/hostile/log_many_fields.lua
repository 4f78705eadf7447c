-- __pairs that never ends, given as fields.
-- expect: failed script.error at most 5
return function(ctx)
  ctx:log("info", "x", setmetatable({}, { __pairs = function()
    return function(_, k) return (k or 0) + 1, 1 end
  end }))
end
