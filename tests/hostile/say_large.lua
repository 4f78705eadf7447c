-- An agent that says a megabyte, in a loop.
-- expect: failed agent.too_large 65536
local tm = require "tidemill"
local loud = { respond = function() return ("x"):rep(1000000) end }
return { agents = { loud = loud }, steps = { tm.ConversationStep { step_id = "shout",
  step_type = "agent_response", agent = loud, next_steps = { "shout" } } } }
