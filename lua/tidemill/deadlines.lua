--- When a conversation must be looked at again: named deadlines, of the wait at one step
--- (runtime.wait) or of the whole conversation (runtime). The wake_at of what is written is the
--- earliest of them; a `wake` turn asks which one it was.
local fault = require "tidemill.fault"

local M = {}

---@param holder table runtime.wait or runtime
---@param name string
---@param at integer? ms since 1970; nil: there is none any more
function M.set(holder, name, at)
  local list = holder.deadlines or {}
  list[name] = at
  holder.deadlines = next(list) and list or nil
end

---@param holder table runtime.wait or runtime
---@param name string
---@return integer? at
function M.at(holder, name)
  return holder.deadlines and holder.deadlines[name]
end

--- Of equal ones the first in the alphabet, whatever order the tables have.
local function earlier(at, name, list)
  for other, when in pairs(list or {}) do
    if not name or when < at or when == at and other < name then at, name = when, other end
  end
  return at, name
end

local function shift(list, by)
  for name, at in pairs(list or {}) do list[name] = at + by end
end

local function shift_wait(wait, by)
  if not wait then return end
  shift(wait.deadlines, by)
  if wait.expires_at then wait.expires_at = wait.expires_at + by end -- of a prompt
  if wait.from then wait.from = wait.from + by end -- of a sleep: when it began, as it were
end

---Moves all of them: the conversation was held for so long, or goes on from so long ago.
---@param runtime table
---@param by integer ms
function M.shift(runtime, by)
  shift(runtime.deadlines, by)
  shift_wait(runtime.wait, by)
  for _, frame in ipairs(runtime.frames or {}) do
    shift_wait(frame.wait, by)
    if frame.expires_at then frame.expires_at = frame.expires_at + by end
  end
end

---The first of the subflow steps on the stack whose time is over.
---@param runtime table
---@return integer? at
---@return integer? position of its frame
function M.of_frames(runtime)
  local at, position
  for i, frame in ipairs(runtime.frames or {}) do
    if frame.expires_at and (not at or frame.expires_at < at) then
      at, position = frame.expires_at, i
    end
  end
  return at, position
end

---When the time of the conversation, or of the flow that it is in, is over.
---@param runtime table
---@return integer? at
function M.of_whole(runtime)
  local whole, flow = M.at(runtime, "workflow"), M.of_frames(runtime)
  return whole and flow and math.min(whole, flow) or whole or flow
end

---@param run tidemill.Run
---@return integer at 0: there is none
---@return string? name
function M.earliest(run)
  local runtime = run.runtime
  local frames = { subflow = M.of_frames(runtime) }
  local at, name = earlier(0, nil, runtime.deadlines)
  at, name = earlier(at, name, frames)
  return earlier(at, name, runtime.wait and runtime.wait.deadlines)
end

---The earliest deadline, when it has passed before the turn began.
---@param run tidemill.Run
---@return string? name
function M.due(run)
  local at, name = M.earliest(run)
  return name and run.turn.now >= at and name or nil
end

---Refuses what somebody else than the user says behind a deadline, whose `wake` is on its way.
---@param run tidemill.Run
---@param step tidemill.Step
---@param name string
function M.refuse_late(run, step, name)
  if M.due(run) ~= name then return end
  error(fault.new("conversation.not_waiting", ("the time of the step '%s' is over, and this came "
    .. "too late; read what follows from that"):format(step.step_id),
    { status = "conflict", turn = true, step_id = step.step_id }), 0)
end

return M
