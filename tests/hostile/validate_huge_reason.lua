-- A refusal of a megabyte.
-- expect: waiting_input xxxx
-- say: "x"
local tm = require "tidemill"
return { steps = { tm.ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?",
  input_schema = { type = "text", validate = function() return false, ("x"):rep(1 << 20) end },
  save_as = "said", next_steps = { "end" } } } }
