-- The config belongs to all conversations.
-- expect: failed script.error cannot be written
return { config = { a = 1 }, steps = { require("tidemill").ConversationStep { step_id = "w",
  step_type = "action", run = function(ctx) ctx.config.a = 2 end, next_steps = { "end" } } } }
