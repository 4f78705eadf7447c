-- The user's text against the script's own pattern: not a match, but no stall either.
-- expect: waiting_input too complicated
-- say: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
local tm = require "tidemill"
return { steps = { tm.ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?",
  input_schema = { type = "text", pattern = "^" .. ("a*"):rep(30) .. "b$" }, save_as = "said",
  next_steps = { "end" } } } }
