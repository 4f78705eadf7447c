-- A choice of more options than there is memory for.
-- expect: refused script.cpu|script.memory attack.lua
local tm = require "tidemill"
local options = {}
for i = 1, 400000 do options[i] = ("option "):rep(100) .. i end
return { steps = { tm.ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?",
  input_schema = { type = "choice", options = options }, save_as = "said",
  next_steps = { "end" } } } }
