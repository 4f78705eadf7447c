--- The stack of flows that a conversation is in: a sub-flow or a digression puts another flow on
--- top of the one that ran, with a state of its own; when it has ended, the one below goes on.
---
--- run.flow and run.state are those of the top. What waits below is in the runtime part of the
--- record; the row's state is always that of the flow with which the conversation began.
local fault = require "tidemill.fault"
local json = require "host.json"
local kinds = require "tidemill.kinds"
local view = require "tidemill.view"

local M = {}

local DEPTH_MOST = 16

--- A flow that waits for the one above it.
---@class tidemill.Frame
---@field flow string
---@field step string that waits for the end of the flow above; of "goto": that follows
---@field why "subflow"|"goto"|"digression"
---@field started integer? when the step began
---@field first integer? the number of the first execution with effects in the flow above
---@field expires_at integer? likewise: when the step's time is over
---@field wait table? what its prompt had come to
---@field state table? of a flow that is not the first one

--- The steps of a branch are a flow that the system does not know by name.
local function flow_of(run, flow_id)
  return run.root.flow_id == flow_id and run.root or run.system.flows[flow_id]
end
M.flow_of = flow_of

---Takes the stack out of the record; `run.flow` and `run.state` are those of the first flow.
---@param run tidemill.Run
function M.restore(run)
  local runtime = run.runtime
  run.root = run.flow
  if not runtime.frames then return end
  run.root_state, run.state = run.state, runtime.state
  run.flow = flow_of(run, runtime.flow)
end

---@param run tidemill.Run
---@return boolean
function M.is_nested(run)
  return run.runtime.frames ~= nil
end

---@param run tidemill.Run
---@param flow_id string
---@return boolean is_open the flow is somewhere on the stack
function M.is_open(run, flow_id)
  for _, frame in ipairs(run.runtime.frames or {}) do
    if frame.flow == flow_id then return true end
  end
  return run.flow.flow_id == flow_id
end

---The state of a flow of the stack; nil: it is not open.
---@param run tidemill.Run
---@param flow_id string
---@return table?
function M.state_of(run, flow_id)
  if run.flow.flow_id == flow_id then return run.state end
  local frames = run.runtime.frames or {}
  for i = #frames, 1, -1 do
    if frames[i].flow == flow_id then return i == 1 and run.root_state or frames[i].state end
  end
end

---Whether a step that waits for the flow on top, or for the branch, says that what is done in it
---may stay (irreversible = false). What has interrupted that flow is none of its business.
---@param run tidemill.Run
---@return boolean
function M.may_stay(run)
  local frames = run.runtime.frames or {}
  for i = #frames, 1, -1 do
    local frame = frames[i]
    if frame.why == "digression" then return false end
    local step = frame.why == "subflow" and flow_of(run, frame.flow).steps[frame.step]
    if step and step.irreversible == false then return true end
  end
  return run.parent ~= nil and M.may_stay(run.parent)
end

---Whether what is done now has interrupted a flow, so that the `undo` of the step by which that was
---called does not take it back.
---@param run tidemill.Run
---@return boolean
function M.is_aside(run)
  local frames, interrupts = run.runtime.frames or {}, false
  for i = #frames, 1, -1 do
    local frame = frames[i]
    if frame.why == "digression" then
      interrupts = true
    elseif frame.why == "subflow" then
      if interrupts then return true end
      if flow_of(run, frame.flow).steps[frame.step].undo then return false end
    end
  end
  return run.parent ~= nil and M.is_aside(run.parent)
end

---Raises when no flow can be put on top any more.
---@param run tidemill.Run
function M.check_depth(run)
  if #(run.runtime.frames or {}) < DEPTH_MOST then return end
  fault.stop("flow.too_deep", ("flows in flows are at most %d deep; '%s' is on top: let one of "
    .. "them end before it goes to the next"):format(DEPTH_MOST, run.flow.flow_id))
end

---Its variables as declared, and over them copies of what is given where it is of their type.
---@param flow tidemill.Flow
---@param given table<string, any>
---@return table
function M.initial_state(flow, given)
  local state = json.restore(flow.variables_text)
  for name, value in pairs(given) do
    local kind = flow.types[name]
    if value ~= json.null and (not kind or kinds[kind](value)) then
      state[name] = type(value) == "table" and view.copy(value) or value
    end
  end
  return state
end

---Puts a flow on top; the caller goes on with its start_step.
---@param run tidemill.Run
---@param flow tidemill.Flow
---@param frame { step: string, why: string, started: integer?, expires_at: integer? }
---@param given table<string, any> values for its variables
function M.push(run, flow, frame, given)
  local runtime = run.runtime
  local frames = runtime.frames or json.array {}
  frame.flow, frame.wait, runtime.wait = run.flow.flow_id, runtime.wait, nil
  runtime.attempt, runtime.tried, runtime.once = nil, nil, nil -- of the step that waits
  local state = M.initial_state(flow, given)
  if #frames == 0 then run.root_state = run.state else frame.state = run.state end
  frames[#frames + 1] = frame
  runtime.frames, runtime.flow = frames, flow.flow_id
  run.flow, run.state, run.state_text = flow, state, nil
  run.snapshot, run.undo = nil, {}
end

---Takes the top away; the flow below is the top again.
---@param run tidemill.Run
---@return tidemill.Frame frame of the flow below
function M.pop(run)
  local runtime = run.runtime
  local frame = table.remove(runtime.frames) ---@type tidemill.Frame
  runtime.wait = frame.wait
  run.flow = flow_of(run, frame.flow)
  if #runtime.frames == 0 then
    runtime.frames, runtime.flow, runtime.state = nil, nil, nil
    run.state, run.root_state = run.root_state, nil
  else
    run.state, runtime.flow = frame.state, frame.flow
  end
  run.state_text, run.snapshot, run.undo = nil, nil, {}
  return frame
end

return M
