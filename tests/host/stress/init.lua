-- What the stress test talks to: each message begins with the name of what is to be done with it.
-- word.lua is written anew by the test before each reload.
local tm = require "tidemill"
local here = require "word"

local deeds = {}

function deeds.plain(ctx)
  ctx.state.count = (ctx.state.count or 0) + 1
  return { count = ctx.state.count }
end

function deeds.busy()
  while true do end -- luacheck: ignore
end

function deeds.hoard()
  local kept = {}
  while true do kept[#kept + 1] = ("x"):rep(1000) .. #kept end
end

function deeds.boom()
  error "boom"
end

function deeds.call(ctx, path)
  local answer = ctx:http { method = "GET", url = here.url .. "/" .. path, timeout = 0.15 }
  return { status = answer and answer.status or 0 }
end

function deeds.twice(ctx)
  local first = deeds.call(ctx, "slow")
  return { first = first, second = deeds.call(ctx, "ok") }
end

local function act(ctx)
  local deed, path = ctx.input:match "^(%a+)/?(%a*)"
  return deeds[deed](ctx, path)
end

local function try(ctx)
  local answer, err = ctx:http { method = "GET", url = here.url .. "/flaky", timeout = 0.15 }
  if not answer then return nil, err end
  if answer.status ~= 200 then error "not this time" end
  return { ok = true }
end

local speaker = { user_id = "speaker", respond = function(ctx)
  return here.word .. " " .. ctx.step.id
end }

local function flow(flow_id, persist_state)
  return tm.ConversationFlow {
    flow_id = flow_id, pattern = tm.ConversationPattern.STEP_BY_STEP_PROCESS, start_step = "hello",
    settings = { enable_rollback = true, max_rollback_steps = 5, persist_state = persist_state },
    steps = {
      tm.ConversationStep { step_id = "hello", step_type = "agent_response", agent = speaker,
        prompt = "hello", next_steps = { "ask" } },
      tm.ConversationStep { step_id = "ask", step_type = "user_input", prompt = "So?",
        input_schema = { type = "text", required = true }, save_as = "said",
        next_steps = { "act", "try", "end" },
        conditional_logic = { condition = function(ctx) return ctx.state.said:match "^%a+" end,
          retry = "try", bye = "end", default = "act" } },
      tm.ConversationStep { step_id = "act", step_type = "action", run = act, save_as = "done",
        on_error = "sorry", next_steps = { "reply" } },
      tm.ConversationStep { step_id = "try", step_type = "action", run = try, save_as = "done",
        max_retries = 2, retry_delay = 0.02, on_error = "sorry", next_steps = { "reply" } },
      tm.ConversationStep { step_id = "reply", step_type = "agent_response", agent = speaker,
        prompt = "reply", next_steps = { "ask" } },
      tm.ConversationStep { step_id = "sorry", step_type = "agent_response", agent = speaker,
        prompt = "sorry", next_steps = { "ask" } },
    },
  }
end

return tm.system {
  name = "stress",
  agents = { speaker = speaker },
  flows = { flow("kept", true), flow("volatile", false) },
}
