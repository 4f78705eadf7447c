-- A condition that writes into state.
-- expect: failed script.error cannot be written here
local tm = require "tidemill"
return { steps = { tm.ConversationStep { step_id = "d", step_type = "decision",
  condition = function(ctx) ctx.state.x = 1 end, conditional_logic = { yes = "end" },
  next_steps = { "end" } } } }
