-- A condition that never decides.
-- expect: failed script.cpu
local tm = require "tidemill"
return { steps = { tm.ConversationStep { step_id = "d", step_type = "decision",
  condition = function() while true do end end, conditional_logic = { yes = "end" },
  next_steps = { "end" } } } }
