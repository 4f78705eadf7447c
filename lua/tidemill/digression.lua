--- Flows that may interrupt another one while it asks: named in its `interrupts`, begun by a phrase
--- that is the user's whole answer, or by a condition.
local context = require "tidemill.context"
local fields = require "tidemill.fields"
local frames = require "tidemill.frames"
local schema = require "tidemill.schema"
local words = require "tidemill.phrases"

local M = {}

---@class tidemill.Interrupt
---@field flow string
---@field phrases table<string, true> normalized
---@field condition (fun(ctx: tm.Context): any)?

local function compile_one(given, position, siblings, report)
  local what = ("interrupts, %d"):format(position)
  if type(given) ~= "table" then
    return report(what .. ": must be { flow = …, phrases = { … } }", "fields")
  end
  if not schema.check(fields.interrupt, given, what, report) then return nil end
  if not siblings[given.flow] then
    report(("%s: there is no flow '%s'%s"):format(what, given.flow,
      schema.hint(given.flow, siblings)), "targets")
  end
  if not given.phrases and not given.condition then
    report(what .. ": give 'phrases' or a 'condition': what begins it", "fields")
  end
  local phrases = {}
  for _, phrase in ipairs(given.phrases or {}) do
    local said = words.compile_one(phrase, what, report)
    if said then phrases[said] = true end
  end
  return { flow = given.flow, phrases = phrases, condition = given.condition }
end

---@param given any[]? a flow's `interrupts`
---@param siblings table<string, true> the flows of the system
---@param report fun(text: string, rule: string)
---@return tidemill.Interrupt[]
function M.compile(given, siblings, report)
  local compiled = {}
  for i, one in ipairs(given or {}) do
    compiled[#compiled + 1] = compile_one(one, i, siblings, report)
  end
  return compiled
end

local function by_phrase(run, interrupts, said)
  for _, interrupt in ipairs(interrupts) do
    if interrupt.phrases[said] and not frames.is_open(run, interrupt.flow) then
      return interrupt.flow
    end
  end
end

local function by_condition(run, step)
  for _, interrupt in ipairs(run.flow.interrupts) do
    if interrupt.condition and not frames.is_open(run, interrupt.flow) then
      local ctx = context.reader(run, step, "a condition of interrupts")
      if interrupt.condition(ctx) then return interrupt.flow end
    end
  end
end

---The flow that what the user said goes to. The phrases of the flows below the top hold as well, so
---that what a conversation offers is there inside its sub-flows; an option of the prompt is no
---phrase.
---@param run tidemill.Run
---@param step tidemill.Step that asks
---@return tidemill.Flow?
function M.of(run, step)
  local flow_id
  if words.may_be(run.input) then
    local said, flows = words.normalized(run.input), run.system.flows
    if not words.is_option(run, step, said) then
      flow_id = by_phrase(run, run.flow.interrupts, said)
      local below = run.runtime.frames or {}
      for i = #below, 1, -1 do
        flow_id = flow_id or by_phrase(run, flows[below[i].flow].interrupts, said)
      end
    end
  end
  flow_id = flow_id or by_condition(run, step)
  return flow_id and run.system.flows[flow_id]
end

return M
