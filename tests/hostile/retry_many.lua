-- A hundred attempts without a pause, each with work to do.
-- expect: failed script.error again
local tm = require "tidemill"
local function again()
  for _ = 1, 10000 do end
  error("again")
end
return { settings = { max_retries = 100, retry_delay = 0 }, steps = { tm.ConversationStep {
  step_id = "again", step_type = "action", run = again, next_steps = { "end" } } } }
