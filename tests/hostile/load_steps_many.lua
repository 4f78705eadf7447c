-- A hundred thousand steps.
-- expect: refused script.cpu attack.lua
local tm = require "tidemill"
local steps = {}
for i = 1, 100000 do
  steps[i] = tm.ConversationStep { step_id = "s" .. i, step_type = "action", run = error,
    next_steps = { "end" } }
end
return { steps = steps }
