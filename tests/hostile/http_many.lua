-- One call after the other, for as long as the step may take: each is a row of its own.
-- expect: failed step.timeout
local tm = require "tidemill"
local function call(ctx)
  while true do ctx:http { url = "http://127.0.0.1:1/" } end
end
return { steps = { tm.ConversationStep { step_id = "call", step_type = "action", run = call,
  timeout = 0.3, next_steps = { "end" } } } }
