-- The turn that bench/ measures: one answer, two offline agent steps of some 200 bytes, 1 KiB of
-- state, and the next prompt. Beside it, a conversation that sleeps for a month.
local tm = require "tidemill"

local clerk = tm.AssistantAgent { user_id = "clerk", system_message = "You take notes." }

local filler = {}
for i = 1, 8 do
  filler["field_" .. i] = ("%d: a line of what a conversation knows "):format(i):rep(3)
end
filler.count, filler.answer = 0, ""

local notes = tm.ConversationFlow {
  flow_id = "notes",
  pattern = tm.ConversationPattern.STEP_BY_STEP_PROCESS,
  start_step = "ask",
  variables = filler,
  settings = { checkpoint_interval = 3600 },
  steps = {
    tm.ConversationStep { step_id = "ask", step_type = "user_input", prompt = "What else?",
      input_schema = { type = "text", required = true, max_length = 500 },
      save_as = "answer", next_steps = { "repeat_it" } },
    tm.ConversationStep { step_id = "repeat_it", step_type = "agent_response", agent = clerk,
      prompt = "Repeat what the user said.",
      response = "Thank you. I have written down what you said: {answer}. It stands in the file "
        .. "now, with what you told us before, and a colleague will read it with care today.",
      next_steps = { "go_on" } },
    tm.ConversationStep { step_id = "go_on", step_type = "agent_response", agent = clerk,
      prompt = "Say how it goes on.",
      response = "This is how it goes on from here: we compare your note with the ones before, and "
        .. "if anything is missing I shall ask you for it. You can add something at any time.",
      next_steps = { "ask" } },
  },
}

local sleeper = tm.ConversationFlow {
  flow_id = "sleeper", start_step = "sleep", variables = { name = "" },
  steps = {
    tm.ConversationStep { step_id = "sleep", step_type = "wait", seconds = 30 * 24 * 3600,
      next_steps = { "end" } },
  },
}

return tm.system { name = "bench", agents = { clerk = clerk }, flows = { notes, sleeper } }
