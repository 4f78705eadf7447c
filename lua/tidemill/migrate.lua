--- Takes a conversation that waits to the version of its system that this state has loaded: first
--- everything that would stand in the way is found and said at once, then the flows' `migrate`
--- functions give the new state. Nothing is kept of a migration that does not come through.
local fault = require "tidemill.fault"
local input = require "tidemill.input"
local json = require "host.json"
local kinds = require "tidemill.kinds"
local subflow = require "tidemill.wait.subflow"
local system = require "tidemill.system"
local undo = require "tidemill.undo"

local M = {}

--- At which type of step a conversation waits in which status.
local TYPES = { waiting_input = "user_input", waiting_approval = "approval",
  waiting_event = "wait", sleeping = "wait" }

--- A flow that the conversation is in, the first one it began with.
---@class tidemill.Place
---@field flow_id string
---@field step_id string? where it stands; nil: at its end
---@field why "subflow"|"goto"|"digression"|"waits"
---@field holder table that has its state, and what its prompt has come to
---@field waits table that has the latter

local function places_of(turn)
  local runtime, list = turn.runtime, {}
  local frames = runtime.frames or {}
  for i, frame in ipairs(frames) do
    list[i] = { flow_id = frame.flow, step_id = frame.step, why = frame.why,
      holder = i == 1 and turn or frame, waits = frame }
  end
  list[#list + 1] = { flow_id = runtime.frames and runtime.flow or turn.flow_id,
    step_id = turn.step, why = "waits", holder = runtime.frames and runtime or turn,
    waits = runtime }
  return list
end

local function status_of(turn)
  local paused = turn.runtime.paused
  return paused and paused.status or turn.status
end

--- Whether the conversation can wait, or have gone on, at that step as it did.
local function takes(step, place, turn)
  if place.why == "subflow" then return step.step_type == "subflow" end
  if place.why == "goto" then return true end
  local wait = place.waits.wait
  if wait and wait.failed then return true end
  local status = place.why == "digression" and "waiting_input" or status_of(turn)
  return step.step_type == TYPES[status]
    and (step.step_type ~= "wait" or (step.event ~= nil) == (status == "waiting_event"))
end

local STANDS = { waits = "at which the conversation waits", digression = "which was interrupted",
  subflow = "which waits for another flow", ["goto"] = "which comes next" }

local function problem_of(place, flow, turn)
  if not flow then return ("there is no flow '%s'"):format(place.flow_id) end
  local id = place.step_id
  local step = id and id ~= "end" and flow.steps[id]
  if not step and (place.why ~= "goto" or id and id ~= "end") then
    return ("the flow '%s' has no step '%s', %s"):format(place.flow_id, tostring(id),
      STANDS[place.why])
  elseif step and not takes(step, place, turn) then
    return ("the step '%s' of the flow '%s', %s, has become %s"):format(id, place.flow_id,
      STANDS[place.why], step.event and "a wait for an event" or "a step of the type "
      .. step.step_type)
  end
end

local function refuse(code, turn, problems)
  error(fault.new(code, ("conversation %s cannot go from version %s to the current one: %s"):format(
    turn.conversation_id, turn.version, table.concat(problems, "; ")),
    { status = "conflict", turn = true }), 0)
end

--- What the conversation has done, should it fail one day: "flow/step" each, of steps that can be
--- undone by the version that it has.
local function check_undo(turn, flows)
  local root, problems = flows[turn.flow_id], {}
  if not root.compensates or turn.input == json.null then return end
  for _, name in ipairs(turn.input.done) do
    local flow_id, step_id = name:match "^(.*)/(.-)$"
    if not undo.find_step(flows, flow_id, step_id) then
      problems[#problems + 1] = ("the step '%s' of the flow '%s' was completed, and there is no "
        .. "'undo' of it, which compensate_on_failure would need"):format(step_id, flow_id)
    end
  end
  if #problems > 0 then refuse("migrate.undo", turn, problems) end
end

local function check(turn, flows, places)
  local problems, undefined = {}, {}
  for _, place in ipairs(places) do
    local flow = flows[place.flow_id]
    problems[#problems + 1] = problem_of(place, flow, turn)
    if flow and not flow.migrate and not undefined[place.flow_id] then
      undefined[place.flow_id] = true
      undefined[#undefined + 1] = ("the flow '%s' (%s:%d) has no migrate function; migrate = "
        .. "function(state) return state end keeps the state as it is"):format(place.flow_id,
        flow.source.file, flow.source.line)
    end
  end
  if #problems > 0 then refuse("migrate.step", turn, problems) end
  if #undefined > 0 then refuse("migrate.undefined", turn, undefined) end
  check_undo(turn, flows)
  turn.input = json.null
end

local function failure_of(flow, text)
  return fault.new("migrate.failed", ("the migrate function of the flow '%s' (%s:%d) %s"):format(
    flow.flow_id, flow.source.file, flow.source.line, text), { status = "script", turn = true })
end

local function failed(flow, text)
  error(failure_of(flow, text), 0)
end

---What has become of a turn that a limit stopped before its conversation was of this version.
---@param turn table
---@param err any
---@return any err
function M.stopped(turn, err)
  return turn.migrates and failure_of(turn.migrates, "failed: " .. fault.of(err).message) or err
end

--- What the script returned, as a state of the flow: new variables begin as they are declared.
local function state_of(flow, made)
  if type(made) ~= "table" or json.is_array(made) then
    failed(flow, ("returned a %s; it must return the new state"):format(
      json.is_array(made) and "list" or type(made)))
  end
  local encoded, err = json.encode(made)
  if not encoded then failed(flow, "returned a state that cannot be kept: " .. err.message) end
  local state = json.restore(encoded)
  for name, value in pairs(json.restore(flow.variables_text)) do
    local kind = flow.types[name]
    if state[name] == nil then
      state[name] = value
    elseif kind and state[name] ~= json.null and not kinds[kind](state[name]) then
      failed(flow, ("gave '%s' a %s, and the flow declares it as %s"):format(name,
        type(state[name]), kind))
    end
  end
  return state
end

local function new_state(flow, state, from)
  local ok, made = xpcall(flow.migrate, fault.caught, state, from)
  if ok then return state_of(flow, made) end
  failed(flow, "failed: " .. fault.of(made).message)
end

--- A form that is half filled keeps the fields that there still are.
local function refill(wait, step)
  if wait and wait.partial then wait.partial = input.still(step.input, wait.partial) end
end

local function refill_forms(runtime, flows)
  for key, partial in pairs(runtime.forms or {}) do
    local flow_id, step_id = key:match "^(.-)/(.*)$"
    local flow = flows[flow_id]
    local step = flow and flow.steps[step_id]
    local kept = step and step.input and step.input.by_and_by and input.still(step.input, partial)
    runtime.forms[key] = kept or nil
  end
  if runtime.forms and not next(runtime.forms) then runtime.forms = nil end
end

---Makes the turn's record one of this version; raises, with the reason, when that cannot be.
---@param turn table
function M.apply(turn)
  local runtime, flows = turn.runtime, system.loaded(turn.system).flows
  local places = places_of(turn)
  check(turn, flows, places)
  undo.restored(runtime, flows[turn.flow_id]) -- before new times are set
  local from = runtime.paused and runtime.paused.since
  for _, place in ipairs(places) do
    local flow, holder = flows[place.flow_id], place.holder
    turn.migrates = flow
    holder.state = new_state(flow, holder.state, turn.version)
    if place.why == "subflow" then
      place.waits.expires_at = subflow.expires_at(flow.steps[place.step_id], from)
    end
    local wait = place.waits.wait
    if wait and not wait.failed then refill(wait, flow.steps[place.step_id]) end
  end
  refill_forms(runtime, flows)
  runtime.rollback, runtime.checkpoints = nil, nil -- as the flow of this version has them
end

return M
