-- A weak table as a bridge between conversations sees only what its own script put there.
-- expect: refused script.invalid __mode is not available
local seen = setmetatable({}, { __mode = "v" })
return function(ctx)
  seen[#seen + 1] = ctx
  return #seen
end
