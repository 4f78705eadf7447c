-- Each way out of spent memory spends it again.
-- expect: failed script.cpu|script.memory
local tm = require "tidemill"
local function eat() local t = {} while true do t[#t + 1] = {} end end
local steps = {}
for i = 1, 10 do
  steps[i] = tm.ConversationStep { step_id = "s" .. i, step_type = "action", run = eat,
    on_error = i < 10 and "s" .. i + 1 or nil, next_steps = { "end" } }
end
return { steps = steps }
