-- The end of the step's time, caught, and another call.
-- expect: failed script.cpu
local tm = require "tidemill"
local function call(ctx)
  while true do pcall(ctx.http, ctx, { url = ctx.session.metadata.silent, timeout = 600 }) end
end
return { steps = { tm.ConversationStep { step_id = "call", step_type = "action", run = call,
  timeout = 0.2, next_steps = { "end" } } } }
