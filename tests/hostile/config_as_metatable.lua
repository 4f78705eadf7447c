-- The settings of all conversations, reached as the metatable of another table.
-- expect: failed script.error
return {
  config = { inner = { text = "as loaded" } },
  steps = { require "tidemill".ConversationStep { step_id = "attack", step_type = "action",
    next_steps = { "end" }, run = function(ctx)
      local settings = getmetatable(setmetatable({}, ctx.config))
      settings.leaked = "told to all"
      settings.inner.text = "likewise"
      return ctx.config.leaked
    end } },
}
