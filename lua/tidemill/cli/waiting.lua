--- What a terminal shows of a conversation that waits or runs: for whom or what, until when, and
--- how far its step is.
local json = require "host.json"
local text = require "tidemill.cli.text"

local M = {}

local function given(value)
  return value ~= nil and value ~= json.null
end

--- A role is asked with a revision, with which it may decide.
local function until_when(waiting, what)
  local time = given(waiting.expires_at) and text.time(waiting.expires_at)
  if not what then return time end
  local more = { given(waiting.revision) and ("revision %d"):format(waiting.revision) or nil }
  if time then more[#more + 1] = "until " .. time end
  return more[1] and ("%s (%s)"):format(what, table.concat(more, ", ")) or what
end

--- A role, an event, or only a time.
local function awaited(waiting)
  if given(waiting.role) then
    return until_when(waiting, ("%s: %s"):format(text.clean(waiting.role),
      text.clean(waiting.text)))
  end
  return until_when(waiting, given(waiting.event)
    and ("the event '%s'"):format(text.clean(waiting.event)) or nil)
end

---The end of a turn that takes no answer of its user.
---@param waiting table waiting_for of the answer
---@return string
function M.sentence(waiting)
  if given(waiting.role) then
    return until_when(waiting, ("The conversation waits for '%s' to decide: %s"):format(
      text.clean(waiting.role), text.clean(waiting.text)))
  end
  local form = given(waiting.event) and "The conversation waits for %s."
    or "The conversation waits until %s."
  return form:format(awaited(waiting))
end

--- What the step has taken, and what is expected of it.
local function progress_of(progress, now)
  local expected = "expected " .. text.span(progress.expected_ms)
  if not now then return expected end
  return text.span(math.max(now - progress.started, 0)) .. ", " .. expected
end

---The members of a record that say so: name and text.
---@param answer table
---@param now integer? ms since 1970
---@return fun(): string?, string?
function M.members(answer, now)
  return coroutine.wrap(function()
    local waiting, progress = answer.waiting_for, answer.progress
    if type(waiting) == "table" and waiting ~= json.null then
      coroutine.yield("waiting_for", awaited(waiting))
    end
    if type(progress) == "table" and progress ~= json.null then
      coroutine.yield("progress", progress_of(progress, now))
    end
  end)
end

return M
