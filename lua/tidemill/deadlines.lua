--- When a conversation must be looked at again: named deadlines, of the wait at one step
--- (runtime.wait) or of the whole conversation (runtime). The wake_at of what is written is the
--- earliest of them; a `wake` turn asks which one it was.
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
  for _, frame in ipairs(runtime.frames or {}) do shift_wait(frame.wait, by) end
end

---@param run tidemill.Run
---@return integer at 0: there is none
---@return string? name
function M.earliest(run)
  local runtime = run.runtime
  local at, name = earlier(0, nil, runtime.deadlines)
  return earlier(at, name, runtime.wait and runtime.wait.deadlines)
end

---The earliest deadline, when it has passed before the turn began.
---@param run tidemill.Run
---@return string? name
function M.due(run)
  local at, name = M.earliest(run)
  return name and run.turn.now >= at and name or nil
end

return M
