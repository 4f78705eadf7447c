--- When a conversation must be looked at again: named deadlines in the runtime part of its record.
--- The wake_at of what is written is the earliest; a `wake` turn asks which one it was.
local M = {}

---@param run tidemill.Run
---@param name string
---@param at integer? ms since 1970; nil: there is none any more
function M.set(run, name, at)
  local runtime = run.runtime
  local list = runtime.deadlines or {}
  list[name] = at
  runtime.deadlines = next(list) and list or nil
end

---@param run tidemill.Run
---@param name string
---@return integer? at
function M.at(run, name)
  local list = run.runtime.deadlines
  return list and list[name]
end

---@param run tidemill.Run
---@return integer at 0: there is none
---@return string? name of equals the first in the alphabet
function M.earliest(run)
  local at, name = 0, nil
  for other, when in pairs(run.runtime.deadlines or {}) do
    if not name or when < at or when == at and other < name then at, name = when, other end
  end
  return at, name
end

---The earliest deadline that has passed when the turn began.
---@param run tidemill.Run
---@return string? name
function M.due(run)
  local at, name = M.earliest(run)
  return name and run.turn.now >= at and name or nil
end

return M
