-- The well-behaved system beside the hostile one: greets whoever names themself.
local tm = require "tidemill"
local host = { respond = function(ctx) return "hello " .. (ctx.state.said or "nobody") end }

return tm.system { agents = { host = host }, flows = { tm.ConversationFlow {
  flow_id = "talk", pattern = tm.ConversationPattern.STEP_BY_STEP_PROCESS, start_step = "greet",
  steps = {
    tm.ConversationStep { step_id = "greet", step_type = "agent_response", agent = host,
      next_steps = { "ask" } },
    tm.ConversationStep { step_id = "ask", step_type = "user_input", prompt = "Who are you?",
      input_schema = { type = "text", required = true }, save_as = "said",
      conditional_logic = { condition = "said", bye = "end", default = "greet" },
      next_steps = { "greet", "end" } },
  },
} } }
