-- A validate function that never returns.
-- expect: failed script.cpu
-- say: "x"
local tm = require "tidemill"
return { steps = { tm.ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?",
  input_schema = { type = "text", validate = function() while true do end end }, save_as = "said",
  next_steps = { "end" } } } }
