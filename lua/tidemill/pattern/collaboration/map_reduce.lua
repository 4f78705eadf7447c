--- Map-reduce: `split` makes a list of parts of the task, the participants work on them beside each
--- other, each on every n-th, as {part}; the conclusion makes one of {results}, which are in the
--- order of the parts.
local json = require "host.json"

local M = { needs = { "split", "conclusion" } }

function M.first()
  return "split"
end

local function splitter(split)
  return function(ctx)
    local parts, err = split(ctx)
    if parts == nil and err ~= nil then return nil, err end
    if type(parts) ~= "table" or #parts == 0 and next(parts) ~= nil then
      error("split must return a list of the parts", 0)
    end
    return json.array(parts)
  end
end

--- The next part of a participant, of whom there are `count`; nothing when there is none left.
local function taker(position, count)
  return function(ctx)
    ctx.state.taken = (ctx.state.taken or position - count) + count
    return ctx.state.parts[ctx.state.taken]
  end
end

--- A condition.
local function has_part(ctx)
  return ctx.output == nil and "none" or "some"
end

local function keeper(name)
  return function(ctx)
    local done = ctx.state.done or json.array {}
    done[#done + 1] = ctx.state[name]
    ctx.state.done = done
  end
end

local function give_done(ctx)
  return ctx.state.done or json.array {}
end

local function branch(flow, one, position, count)
  local steps = {}
  flow:step({ step_id = "take", step_type = "action", run = taker(position, count),
    save_as = "part", next_steps = { one.name, "give" },
    conditional_logic = { condition = has_part, none = "give", default = one.name } }, steps)
  flow:say(one.name, one, { save_as = one.name, next_steps = { "keep" } }, steps)
  flow:step({ step_id = "keep", step_type = "action", run = keeper(one.name),
    next_steps = { "take" } }, steps)
  flow:step({ step_id = "give", step_type = "action", run = give_done, next_steps = { "end" } },
    steps)
  return steps
end

--- `merge`: what the participants made of their parts, in the order of the parts.
local function merge_of(participants)
  return function(ctx, results)
    local list, count = json.array {}, #participants
    for i = 1, #ctx.state.parts do
      local one = participants[(i - 1) % count + 1]
      list[i] = results[one.name].output[(i - 1) // count + 1]
    end
    return list
  end
end

---@param given table
---@param flow tidemill.Builder
---@param onward string
function M.build(given, flow, onward)
  local branches, count = {}, #given.participants
  flow:step { step_id = "split", step_type = "action", run = splitter(given.split),
    save_as = "parts", next_steps = { "map" } }
  for i, one in ipairs(given.participants) do branches[one.name] = branch(flow, one, i, count) end
  flow:step { step_id = "map", step_type = "parallel", branches = branches, save_as = "results",
    concurrency = given.concurrency, merge = merge_of(given.participants),
    next_steps = { onward } }
end

return M
