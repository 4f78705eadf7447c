--- Consensus: in each round all speak beside each other and vote for one of the options, until
--- enough of them agree or the rounds are over. Whoever chooses none of them abstains. State has
--- {consensus.agreed}, the option, when they do; {consensus.votes.NAME}, {consensus.said.NAME} and
--- {consensus.counts.OPTION} in any case.
local definition = require "tidemill.definition"
local schema = require "tidemill.schema"

local M = { needs = { "options" } }

--- Words of conditional_logic are no options.
local RESERVED = { condition = true, classify = true, default = true }

function M.first()
  return "round_1"
end

--- How many must have voted for the same option.
local function quorum(given)
  local n = #given.participants
  if given.agreement == "all" then return n end
  if given.agreement == nil or given.agreement == "majority" then return n // 2 + 1 end
  return given.agreement
end

--- The votes of offline participants, as far as they are known, must be among the options.
local function check_votes(given, options, wrong)
  for i, one in ipairs(given.participants) do
    local outcome = type(one) == "table" and one.outcome
    local votes = type(outcome) == "string" and { outcome } or {}
    for _, rule in ipairs(type(outcome) == "table" and outcome or {}) do
      votes[#votes + 1] = type(rule) == "table" and rule.outcome or nil
    end
    if type(outcome) == "table" then votes[#votes + 1] = outcome.default end
    for _, vote in ipairs(votes) do
      if not options[vote] then
        wrong(("participants[%d]: 'outcome': '%s' is not among the options%s"):format(i,
          tostring(vote), schema.hint(tostring(vote), options)))
      end
    end
  end
end

---@param given table
---@param wrong fun(text: string)
function M.check(given, wrong)
  local seen = {}
  for i, option in ipairs(given.options or {}) do
    if definition.check_id(option) or RESERVED[option] or seen[option] then
      wrong(("options[%d]: '%s' %s"):format(i, option, seen[option] and "is there twice"
        or definition.check_id(option) or "is a word of conditional_logic; take another"))
    end
    seen[option] = true
  end
  if given.options then check_votes(given, seen, wrong) end
  if given.options and #given.options < 2 then wrong "'options' must be at least two" end
  local needed = quorum(given)
  if math.type(needed) ~= "integer" or needed < 1 or needed > #given.participants then
    wrong(("'agreement' must be \"all\", \"majority\" or how many of the %d participants")
      :format(#given.participants))
  elseif needed <= #given.participants // 2 then
    wrong(("'agreement' = %d: two options could have as many votes; more than half must agree")
      :format(needed))
  end
end

--- A branch: what its agent says, and the option that it chooses, which is the branch's output.
local function branch(given, flow, one)
  local steps, logic, following = {}, { classify = true, default = "abstain" }, {}
  for i, option in ipairs(given.options) do
    following[i] = ("vote_%d"):format(i)
    logic[option] = following[i]
  end
  following[#following + 1] = "abstain"
  flow:say(one.name, one, { outcome = one.outcome, save_as = one.name, conditional_logic = logic,
    next_steps = following }, steps)
  for i, option in ipairs(given.options) do
    flow:step({ step_id = following[i], step_type = "action", run = function() return option end,
      next_steps = { "end" } }, steps)
  end
  flow:step({ step_id = "abstain", step_type = "action", run = function() end,
    next_steps = { "end" } }, steps)
  return steps
end

local function merge_of(given, number)
  local needed = quorum(given)
  return function(_, results)
    local come = { round = number, votes = {}, said = {}, counts = {} }
    for _, option in ipairs(given.options) do come.counts[option] = 0 end
    for name, result in pairs(results) do
      local vote = result.output
      come.votes[name], come.said[name] = vote, result.state[name]
      if vote then come.counts[vote] = come.counts[vote] + 1 end
      if vote and come.counts[vote] >= needed then come.agreed = vote end
    end
    return come
  end
end

--- A condition.
local function is_agreed(ctx)
  return ctx.output.agreed and "agreed" or "open"
end

---@param given table
---@param flow tidemill.Builder
---@param onward string
function M.build(given, flow, onward)
  local rounds = given.rounds or 3
  for number = 1, rounds do
    local branches, last = {}, number == rounds
    for _, one in ipairs(given.participants) do branches[one.name] = branch(given, flow, one) end
    local following = last and onward or ("round_%d"):format(number + 1)
    flow:step { step_id = ("round_%d"):format(number), step_type = "parallel", branches = branches,
      concurrency = given.concurrency, merge = merge_of(given, number), save_as = "consensus",
      next_steps = last and { onward } or { following, onward },
      conditional_logic = not last and { condition = is_agreed, agreed = onward,
        default = following } or nil }
  end
end

return M
