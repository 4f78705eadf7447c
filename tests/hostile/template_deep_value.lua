-- A template that shows a value with many members, again and again.
-- expect: failed script.cpu|script.memory
local tm = require "tidemill"
local agent = tm.AssistantAgent { user_id = "a", system_message = "b" }
local function set(ctx)
  ctx.state.list = {}
  for i = 1, 10000 do ctx.state.list[i] = i end
end
return { agents = { agent = agent }, steps = {
  tm.ConversationStep { step_id = "set", step_type = "action", run = set, next_steps = { "say" } },
  tm.ConversationStep { step_id = "say", step_type = "agent_response", agent = agent,
    response = ("{list}"):rep(100), next_steps = { "end" } } } }
