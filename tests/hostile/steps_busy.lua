-- Steps that wait for nobody, each well below a slice of CPU time: they share one.
-- expect: failed script.cpu attack.lua:
local tm = require "tidemill"
local function busy() for _ = 1, 100000 do end end
return { steps = { tm.ConversationStep { step_id = "busy", step_type = "action", run = busy,
  next_steps = { "busy" } } } }
