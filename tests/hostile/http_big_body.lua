-- A constant of the system sent by fifteen branches: it is one text, however many wait.
-- expect: failed step.timeout
local tm = require "tidemill"
local BIG = ("x"):rep(8 * 1000 * 1000)
local branches = {}
for i = 1, 15 do
  local function call(ctx)
    local url = ctx.session.metadata.silent
    ctx:http { url = url, timeout = i / 20 } -- one after the other: each in a slice of its own
    return ctx:http { url = url, method = "POST", body = BIG }
  end
  branches["b" .. i] = { tm.ConversationStep { step_id = "call_" .. i, step_type = "action",
    run = call } }
end
return { steps = { tm.ConversationStep { step_id = "calls", step_type = "parallel",
  branches = branches, concurrency = 15, timeout = 2, next_steps = { "end" } } } }
