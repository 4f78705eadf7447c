-- A definition whose metatable invents members for ever.
-- expect: refused script.invalid
return { steps = setmetatable({}, { __index = function(_, i)
  return require("tidemill").ConversationStep { step_id = "s" .. tostring(i), step_type = "action",
    run = function() end, next_steps = { "end" } }
end }) }
