-- An agent that answers with something else.
-- expect: failed script.error attack.lua
local tm = require "tidemill"
local odd = { respond = function()
  return setmetatable({}, { __index = function() error("no") end })
end }
return { agents = { odd = odd }, steps = { tm.ConversationStep { step_id = "say",
  step_type = "agent_response", agent = odd, next_steps = { "end" } } } }
