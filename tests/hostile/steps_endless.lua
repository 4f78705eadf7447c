-- Steps that lead to each other and wait for nobody.
-- expect: failed flow.endless
local tm = require "tidemill"
local function step(id, to)
  return tm.ConversationStep { step_id = id, step_type = "action", run = function() end,
    next_steps = { to } }
end
return { steps = { step("a", "b"), step("b", "a") } }
