-- A server that accepts and never answers; the step's time ends the wait.
-- expect: failed step.timeout
local tm = require "tidemill"
local function call(ctx) return ctx:http { url = ctx.session.metadata.silent, timeout = 600 } end
return { steps = { tm.ConversationStep { step_id = "call", step_type = "action", run = call,
  timeout = 0.2, next_steps = { "end" } } } }
