-- A coroutine of an earlier step that still waits for an answer is resumed in this one.
-- expect: failed script.error
local tm = require "tidemill"
local kept
local function first(ctx)
  kept = coroutine.create(function() return ctx:http { url = ctx.session.metadata.silent } end)
end
local function second()
  local ok, e = coroutine.resume(kept)
  error(tostring(ok) .. tostring(e))
end
return { steps = {
  tm.ConversationStep { step_id = "first", step_type = "action", run = first,
    next_steps = { "second" } },
  tm.ConversationStep { step_id = "second", step_type = "action", run = second,
    next_steps = { "end" } } } }
