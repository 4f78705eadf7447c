-- A rule of the offline provider with a pattern that backtracks.
-- expect: completed
-- say: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
local tm = require "tidemill"
local agent = tm.AssistantAgent { user_id = "a", system_message = "b" }
return { agents = { agent = agent }, steps = {
  tm.ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?", save_as = "said",
    input_schema = { type = "text" }, next_steps = { "sort" } },
  tm.ConversationStep { step_id = "sort", step_type = "decision", agent = agent,
    outcome = { { matches = ("a-"):rep(30) .. "b", outcome = "yes" }, default = "no" },
    conditional_logic = { classify = true, yes = "end", no = "end" }, next_steps = { "end" } },
} }
