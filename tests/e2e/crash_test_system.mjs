// The system that the crash tests run. Flow `loop`: every answer makes three calls to the outside, in
// two agent steps, between pure steps that count. `pure`: no calls at all. `stubborn`: calls out
// before it asks anything; an answer with "flaky" in it fails once, one with "bad" always.
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
  local_one = { respond = function(ctx) return "noted " .. ctx.state.item end },
  greeter = { respond = function(ctx) call(ctx, "s1") return "hello" end },
  stubborn = { respond = function(ctx)
    call(ctx, "r1")
    if ctx.state.item:find("bad") then error("always") end
    if ctx.state.item:find("flaky") and ctx.step.attempt == 1 then error("once") end
    call(ctx, "r2")
    return "got " .. ctx.state.item
  end },
  sorry = { respond = function(ctx) return "sorry for " .. ctx.state.item end },
}

local function ask(target)
  return tm.ConversationStep { step_id = "ask", step_type = "user_input", prompt = "Next ({count})?",
    input_schema = { type = "text", required = true }, save_as = "item", next_steps = { target } }
end

local function tally(target)
  return tm.ConversationStep { step_id = "tally", step_type = "action",
    run = function(ctx) ctx.state.count = ctx.state.count + 1 return ctx.state.count end,
    next_steps = { target } }
end

local loop = tm.ConversationFlow {
  flow_id = "loop", pattern = tm.ConversationPattern.STEP_BY_STEP_PROCESS,
  start_step = "ask", variables = { count = 0 },
  steps = {
    ask "fetch_a",
    tm.ConversationStep { step_id = "fetch_a", step_type = "agent_response", agent = agents.first,
      prompt = "a", next_steps = { "tally" } },
    tally "fetch_b",
    tm.ConversationStep { step_id = "fetch_b", step_type = "agent_response", agent = agents.second,
      prompt = "b", next_steps = { "ask" } },
  },
}

local pure = tm.ConversationFlow {
  flow_id = "pure", pattern = tm.ConversationPattern.STEP_BY_STEP_PROCESS,
  start_step = "ask", variables = { count = 0 },
  steps = {
    ask "tally",
    tally "note",
    tm.ConversationStep { step_id = "note", step_type = "agent_response", agent = agents.local_one,
      prompt = "n", next_steps = { "ask" } },
  },
}

local stubborn = tm.ConversationFlow {
  flow_id = "stubborn", pattern = tm.ConversationPattern.STEP_BY_STEP_PROCESS,
  start_step = "greet", variables = { count = 0, item = "start" },
  settings = { max_retries = 2, retry_delay = 0.02 },
  steps = {
    tm.ConversationStep { step_id = "greet", step_type = "agent_response", agent = agents.greeter,
      prompt = "g", next_steps = { "ask" } },
    ask "fetch",
    tm.ConversationStep { step_id = "fetch", step_type = "agent_response", agent = agents.stubborn,
      prompt = "f", next_steps = { "tally" }, on_error = "sorry" },
    tm.ConversationStep { step_id = "sorry", step_type = "agent_response", agent = agents.sorry,
      prompt = "s", next_steps = { "tally" } },
    tally "ask",
  },
}

return tm.system { name = "crashy", agents = agents, flows = { loop, pure, stubborn },
  config = { url = "${url}" } }
`;
