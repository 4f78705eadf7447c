-- As little as a system can be: what its state takes is the runtime's own code.
local tm = require "tidemill"

local ask = tm.ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?",
  input_schema = { type = "text" }, next_steps = { "end" } }

return tm.system { agents = {}, flows = {
  tm.ConversationFlow { flow_id = "least", start_step = "ask", steps = { ask } } } }
