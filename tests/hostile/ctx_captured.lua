-- The ctx of an earlier step, kept in an upvalue.
-- expect: failed script.error has ended
local tm = require "tidemill"
local kept
local function first(ctx) kept = ctx end
local function second() return kept:http { url = "http://127.0.0.1:1/" } end
return { steps = {
  tm.ConversationStep { step_id = "first", step_type = "action", run = first,
    next_steps = { "second" } },
  tm.ConversationStep { step_id = "second", step_type = "action", run = second,
    next_steps = { "end" } } } }
