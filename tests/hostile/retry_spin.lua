-- A spent slice is no reason to try again.
-- expect: failed script.cpu
local tm = require "tidemill"
return { settings = { max_retries = 100, retry_delay = 0 }, steps = { tm.ConversationStep {
  step_id = "spin", step_type = "action", run = function() while true do end end,
  next_steps = { "end" } } } }
