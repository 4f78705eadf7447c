-- Each turn keeps something in an upvalue: the state fills up, and gives way to a new one.
-- expect: waiting_input
-- say: "x"
-- say: "x"
-- say: "x"
-- say: "x"
-- say: "x"
-- say: "x"
-- say: "x"
-- say: "x"
-- say: "x"
-- say: "x"
-- say: "x"
-- say: "x"
local tm = require "tidemill"
local hoard = {}
local function keep()
  for _ = 1, 45000 do hoard[#hoard + 1] = { #hoard } end
end
return { steps = {
  tm.ConversationStep { step_id = "keep", step_type = "action", run = keep,
    next_steps = { "ask" } },
  tm.ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?", save_as = "said",
    input_schema = { type = "text" }, next_steps = { "keep" } } } }
