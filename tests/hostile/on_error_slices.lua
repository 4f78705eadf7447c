-- Each way out of a spent slice spends another one.
-- expect: failed script.cpu attack.lua:4
local tm = require "tidemill"
local function spin() while true do end end
local steps = {}
for i = 1, 10 do
  steps[i] = tm.ConversationStep { step_id = "s" .. i, step_type = "action", run = spin,
    on_error = i < 10 and "s" .. i + 1 or nil, next_steps = { "end" } }
end
return { steps = steps }
