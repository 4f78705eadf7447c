--- A debate: in each round all speak beside each other, and see what was said in those before:
--- {debate.said.NAME} in the last one, {debate.rounds.1.NAME} in the first. Then the conclusion.
local json = require "host.json"

local M = { needs = { "conclusion" } }

function M.first()
  return "round_1"
end

--- What the branches said, by name.
local function said_in(results)
  local said = {}
  for name, result in pairs(results) do said[name] = result.output end
  return said
end

--- `merge` of a round: its own words behind those of the rounds before.
local function merge(ctx, results)
  local rounds, before = json.array {}, ctx.state.debate
  for i, round in ipairs(before and before.rounds or {}) do
    rounds[i] = {}
    for name, text in pairs(round) do rounds[i][name] = text end
  end
  rounds[#rounds + 1] = said_in(results)
  return { round = #rounds, said = said_in(results), rounds = rounds }
end

---@param given table
---@param flow tidemill.Builder
---@param onward string
function M.build(given, flow, onward)
  local rounds = given.rounds or 2
  for number = 1, rounds do
    local branches = {}
    for _, one in ipairs(given.participants) do
      branches[one.name] = {}
      flow:say(one.name, one, {}, branches[one.name])
    end
    flow:step { step_id = ("round_%d"):format(number), step_type = "parallel", branches = branches,
      concurrency = given.concurrency, merge = merge, save_as = "debate",
      next_steps = { number < rounds and ("round_%d"):format(number + 1) or onward } }
  end
end

return M
