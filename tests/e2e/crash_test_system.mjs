// The system that the crash tests run: every answer makes three calls to the outside, in two agent
// steps, between pure steps that count.
export const crashSystem = (url) => `
local tm = require "tidemill"

local function call(ctx, name)
  local answer, err = ctx:http {
    method = "POST", url = ctx.config.url .. "/" .. name,
    json = { conversation = ctx.conversation_id, item = ctx.state.item, call = name },
  }
  if not answer then error(err) end
  return answer
end

local agents = {
  first = { respond = function(ctx) call(ctx, "a1") return "a for " .. ctx.state.item end },
  second = { respond = function(ctx)
    call(ctx, "b1")
    call(ctx, "b2")
    return "b for " .. ctx.state.item
  end },
}

local loop = tm.ConversationFlow {
  flow_id = "loop", pattern = tm.ConversationPattern.STEP_BY_STEP_PROCESS,
  start_step = "ask", variables = { count = 0 },
  steps = {
    tm.ConversationStep { step_id = "ask", step_type = "user_input", prompt = "Next ({count})?",
      input_schema = { type = "text", required = true }, save_as = "item",
      next_steps = { "fetch_a" } },
    tm.ConversationStep { step_id = "fetch_a", step_type = "agent_response", agent = agents.first,
      prompt = "a", next_steps = { "tally" } },
    tm.ConversationStep { step_id = "tally", step_type = "action",
      run = function(ctx) ctx.state.count = ctx.state.count + 1 return ctx.state.count end,
      next_steps = { "fetch_b" } },
    tm.ConversationStep { step_id = "fetch_b", step_type = "agent_response", agent = agents.second,
      prompt = "b", next_steps = { "ask" } },
  },
}

return tm.system { name = "crashy", agents = agents, flows = { loop },
  config = { url = "${url}" } }
`;
