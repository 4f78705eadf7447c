-- A failing step whose way out fails, for ever.
-- expect: failed flow.endless
local tm = require "tidemill"
local function step(id, other)
  return tm.ConversationStep { step_id = id, step_type = "action", run = error,
    on_error = other, next_steps = { other } }
end
return { steps = { step("a", "b"), step("b", "a") } }
