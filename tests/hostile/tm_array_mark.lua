-- The metatable of arrays, put to another use.
-- expect: completed
return function(ctx)
  local tm = require "tidemill"
  local mark = getmetatable(tm.array {})
  ctx.state.list = setmetatable({ "x" }, type(mark) == "table" and mark or nil)
end
