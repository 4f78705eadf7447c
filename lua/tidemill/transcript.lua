--- What was said in a conversation until now, for an agent that sums it up: read from the rows,
--- page by page, and behind that what this turn has said since its newest row. A turn that runs
--- again after a crash finds the same, wherever it was interrupted.
local fault = require "tidemill.fault"
local journal = require "host.journal"
local json = require "host.json"
local task = require "tidemill.task"

local M = {}

local MESSAGES_MOST, BYTES_MOST = 500, 256 << 10

local LEFT_OUT = ("[The beginning of the conversation was left out: at most %d messages and %d "
  .. "bytes of it are given.]"):format(MESSAGES_MOST, BYTES_MOST)

--- Newest first, as long as there is room.
---@return boolean has_room
local function take(taken, message)
  local bytes = taken.bytes + #message.text
  if #taken == MESSAGES_MOST or bytes > BYTES_MOST then
    taken.is_cut = true
    return false
  end
  taken.bytes = bytes
  taken[#taken + 1] = { role = message.role, text = message.text, agent = message.agent,
    step_id = message.step_id }
  return true
end

local function take_rows(run, taken)
  local cursor
  repeat
    local text, err = task.await(journal.messages(run.id, cursor))
    if not text then error(fault.of(err), 0) end
    local page = json.decode(text)
    for _, message in ipairs(page.items) do
      if not take(taken, message) then return end
    end
    cursor = page.next
  until cursor == json.null
end

local function take_turn(run, taken)
  for i = #run.messages, 1, -1 do
    if not take(taken, run.messages[i]) then return false end
  end
  return true
end

---The messages, oldest first. Where there are too many the first is a note that says so.
---@param run tidemill.Run
---@return tm.Said[]
function M.read(run)
  local taken, list = { bytes = 0 }, json.array {}
  if take_turn(run, taken) then take_rows(run, taken) end
  if taken.is_cut then list[1] = { role = "note", text = LEFT_OUT } end
  for i = #taken, 1, -1 do list[#list + 1] = taken[i] end
  return list
end

return M
