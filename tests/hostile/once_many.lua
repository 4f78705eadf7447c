-- Results for ever, each a row: the step may keep so many bytes, and take so much time.
-- expect: failed step.too_large
local tm = require "tidemill"
local function keep(ctx)
  local n = 0
  while true do
    n = n + 1
    ctx:once("result " .. n, function() return ("x"):rep(100000) end)
  end
end
return { steps = { tm.ConversationStep { step_id = "keep", step_type = "action", run = keep,
  next_steps = { "end" } } } }
