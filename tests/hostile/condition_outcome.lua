-- An outcome that is a table with __tostring.
-- expect: failed branch.outcome
local tm = require "tidemill"
return { steps = { tm.ConversationStep { step_id = "d", step_type = "decision",
  condition = function() return setmetatable({}, { __tostring = function() return "yes" end }) end,
  conditional_logic = { yes = "end" }, next_steps = { "end" } } } }
