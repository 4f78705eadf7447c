-- A prompt of a megabyte of braces.
-- expect: refused script.cpu init.lua:1
local tm = require "tidemill"
return { steps = { tm.ConversationStep { step_id = "ask", step_type = "user_input",
  prompt = ("{a}"):rep(300000) .. "{", input_schema = { type = "text" },
  next_steps = { "end" } } } }
