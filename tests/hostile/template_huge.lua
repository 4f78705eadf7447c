-- A template that names a large value a thousand times.
-- expect: failed script.cpu|script.memory
local tm = require "tidemill"
local agent = tm.AssistantAgent { user_id = "a", system_message = "b" }
return { agents = { agent = agent }, steps = {
  tm.ConversationStep { step_id = "set", step_type = "action", save_as = "big",
    run = function() return ("x"):rep(60000) end, next_steps = { "say" } },
  tm.ConversationStep { step_id = "say", step_type = "agent_response", agent = agent,
    response = ("{big}"):rep(1000), next_steps = { "end" } } } }
