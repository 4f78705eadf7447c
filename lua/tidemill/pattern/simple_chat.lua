--- SIMPLE_CHAT: the user says something, the agent answers, and so on until the user has had
--- enough.
local builder = require "tidemill.pattern.builder"
local paths = require "tidemill.check.paths"

local M = {}

M.fields = builder.fields {
  agent = { type = "any", required = true }, prompt = { type = "string", required = true },
  again = { type = "string" }, instruction = { type = "string" }, response = { type = "string" },
  stop = { type = "names" }, farewell = { type = "string" },
}

local function ask(flow, given, id, prompt)
  local last = given.farewell and "farewell" or "end"
  flow:step { step_id = id, step_type = "user_input", prompt = prompt, save_as = "message",
    input_schema = { type = "text", required = true }, next_steps = { "answer", last },
    conditional_logic = { condition = builder.stops_at(given.stop), stop = last,
      default = "answer" } }
end

---@param given table
---@param flow tidemill.Builder
function M.build(given, flow)
  if given.stop and #given.stop == 0 then
    return flow.report("simple_chat: 'stop' must name at least one word that ends the chat",
      "fields")
  end
  ask(flow, given, "ask", given.prompt)
  flow:say("answer", given, { save_as = "answer",
    next_steps = { given.again and "ask_again" or "ask" } })
  if given.again then ask(flow, given, "ask_again", given.again) end
  if given.farewell then
    flow:say("farewell", { agent = given.agent, response = given.farewell },
      { next_steps = { "end" } })
  end
end

local function steps_of(flow, is_one)
  local found = {}
  for _, id in ipairs(flow.step_order) do
    if is_one(flow.steps[id]) then found[#found + 1] = flow.steps[id] end
  end
  return found
end

---@param flow tidemill.Flow
---@param report fun(step: tidemill.Step?, text: string)
function M.check(flow, report)
  local asking = steps_of(flow, function(step) return step.input and step.input.type == "text" end)
  local answering = steps_of(flow, function(step) return step.step_type == "agent_response" end)
  if #asking == 0 then
    return report(nil, "there is no user_input of the type 'text': the user cannot say anything")
  elseif #answering == 0 then
    return report(nil, "there is no agent_response: nobody answers the user")
  end
  for _, ask_step in ipairs(asking) do
    local after = paths.reach(flow, ask_step.step_id)
    for _, answer in ipairs(answering) do
      local follows = after[answer.step_id]
      if follows and paths.reach(flow, answer.step_id)[ask_step.step_id] then return end
    end
  end
  report(answering[1], "does not lead back to a user_input of the type 'text': the chat would be "
    .. "over after one answer; name the question in its next_steps")
end

return M
