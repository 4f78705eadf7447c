--- The rows after which a turn goes on: begin rows and recorded calls. Branches of one turn write
--- them one at a time. A begin row would forget the calls that other branches have recorded, so
--- what a branch has completed is recorded as a call as well.
local draft = require "tidemill.draft"
local journal = require "host.journal"
local json = require "host.json"
local task = require "tidemill.task"

local M = {}

--- A begin row is needed before the first call, and again when steps were completed since.
local function begin(run)
  if run.begun and #run.steps == 0 then return true end
  local ok, err = task.await(journal.begin(run.id, draft.begin(run)))
  if not ok then return nil, err end
  run.begun = true
  draft.written(run)
  return true
end

local function since(list, position)
  return table.move(list, position + 1, #list, 1, json.array {})
end

--- What a branch has come to, with the records that are new.
local function keep(run, made)
  local kept = run.kept
  kept.rows = kept.rows + 1
  local ok, err = task.await(journal.call(run.id, kept.key .. kept.rows, {
    step = made.step, wake_at = made.wake_at, state = made.state, runtime = made.runtime,
    bytes = run.bytes, steps = since(run.steps, kept.steps),
    messages = since(run.messages, kept.messages), events = since(run.events, kept.events),
  }))
  kept.steps, kept.messages, kept.events = #run.steps, #run.messages, #run.events
  run.begun = made.runtime.started ~= nil
  return ok, err
end

--- In the turn's order: alone, or when the other branches let it.
local function alone(run, write, ...)
  if not run.gate then return write(run, ...) end
  task.enter(run.gate)
  local ok, err = write(run, ...)
  task.leave(run.gate)
  return ok, err
end

local function call(run, key, result)
  if run.kept then key = key .. "@" .. run.kept.rows end
  return task.await(journal.call(run.id, key, result))
end

---Before a call: what was completed must be durable.
---@param run tidemill.Run
---@return boolean? ok
---@return any err
function M.begin(run)
  if not run.parent then return begin(run) end
  return alone(run, function()
    local ok, err = begin(run.parent)
    if not ok or run.begun and run.kept.steps == #run.steps then return ok, err end
    return keep(run, draft.begin(run))
  end)
end

---@param run tidemill.Run
---@param key string
---@param result any
---@return boolean? ok
---@return any err
function M.call(run, key, result)
  return alone(run, call, key, result)
end

---A branch goes on at `made.wake_at`, also when the host dies meanwhile.
---@param run tidemill.Run
---@param made table
---@return boolean? ok
---@return any err
function M.keep(run, made)
  return alone(run, function()
    local ok, err = begin(run.parent)
    if not ok then return ok, err end
    return keep(run, made)
  end)
end

--- Of the calls of a branch those count that were recorded behind its newest position, as a begin
--- row has it for a turn: each key says how many positions were recorded before.
local function take_calls(run)
  local live, own = {}, run.prefix
  for key, result in pairs(run.calls) do
    if key:sub(1, #own) == own then
      local logical, after = key:match "^(.*)@(%d+)$"
      run.calls[key] = nil
      if tonumber(after) == run.kept.rows then live[logical] = result end
    end
  end
  for key, result in pairs(live) do run.calls[key] = result end
end

---Takes over what a branch had come to before the turn was interrupted.
---@param run tidemill.Run
---@return table? newest
function M.kept(run)
  local kept, newest = run.kept, nil
  while true do
    local key = kept.key .. kept.rows + 1
    local found = run.calls[key]
    if not found then break end
    newest, run.calls[key], kept.rows = found, nil, kept.rows + 1
    table.move(found.steps, 1, #found.steps, #run.steps + 1, run.steps)
    table.move(found.messages, 1, #found.messages, #run.messages + 1, run.messages)
    local events = found.events or {} -- a host of an older version wrote none
    table.move(events, 1, #events, #run.events + 1, run.events)
  end
  kept.steps, kept.messages, kept.events = #run.steps, #run.messages, #run.events
  take_calls(run)
  return newest
end

return M
