-- ctx.state doubles until it can be neither kept nor read.
-- expect: failed script.cpu|script.memory
local tm = require "tidemill"
local function grow(ctx)
  ctx.state.kept = (ctx.state.kept or "xxxxxxxx") .. (ctx.state.kept or "yyyyyyyy")
end
return { steps = { tm.ConversationStep { step_id = "grow", step_type = "action", run = grow,
  next_steps = { "grow" } } } }
