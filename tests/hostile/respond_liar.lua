-- An answer whose members are made up at each look.
-- expect: failed agent.too_large 65536
local tm = require "tidemill"
local liar = { respond = function()
  return setmetatable({}, { __index = function(_, k)
    return k == "text" and ("x"):rep(1 << 20) or nil
  end })
end }
return { agents = { liar = liar }, steps = { tm.ConversationStep { step_id = "say",
  step_type = "agent_response", agent = liar, next_steps = { "end" } } } }
