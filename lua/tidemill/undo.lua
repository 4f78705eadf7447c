--- What a rollback asks of the runtime.
local deadlines = require "tidemill.deadlines"

local M = {}

---A record that a rollback has brought back: its deadlines are as far away as they were then, and
---no execution gets the number of one that was undone, by which the outside would take its calls
---for those of the other.
---@param runtime table
function M.restored(runtime)
  local restored = runtime.restored
  if not restored then return end
  runtime.restored = nil
  runtime.step_seq = math.max(runtime.step_seq or 0, restored.step_seq)
  deadlines.shift(runtime, restored.moved)
end

return M
