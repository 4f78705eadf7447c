--- What becomes of one passage of the way behind a corrected answer, and whether what it did
--- outside can be taken back: the one set of rules for the plan on paper (plan.lua) and for the
--- pass in which it happens (correct.lua).
local replay = require "tidemill.replay"

local M = {}

---@alias tidemill.Verdict
---| "keep" its record stays, and what it wrote
---| "again" it depended on the answer, or was undone: it runs again
---| "ask" the user confirmed what is something else now: it is asked anew

--- Puts what a passage wrote into a state that is kept as texts.
local function write(texts, writes)
  for name, text in pairs(writes) do texts[name] = text or nil end
end

---The state as it was before a passage, by name.
---@param past tidemill.Past
---@param at integer
---@return table<string, string>
function M.texts_before(past, at)
  local texts = {}
  for name, text in pairs(past.texts) do texts[name] = text end
  for i = 1, at - 1 do write(texts, past[i].writes) end
  return texts
end

--- The names whose values differ.
local function changed(was, now)
  local names = {}
  for name, text in pairs(was) do
    if now[name] ~= text then names[name] = true end
  end
  for name in pairs(now) do
    if not was[name] then names[name] = true end
  end
  return names
end

--- Was the user asked to confirm one of these?
local function confirms(passage, names)
  for name in pairs(passage.confirmed or {}) do
    if names[name] then return true end
  end
  return false
end

---@param reads tidemill.Reads
---@param names table<string, true>
---@return boolean
function M.reads(reads, names)
  if reads.all and next(names) then return true end
  for name in pairs(names) do
    if reads.names[name] then return true end
  end
  return false
end

---@param undone integer[] seqs
---@param passage { seq: integer }
---@return boolean
function M.is_undone(undone, passage)
  for _, seq in ipairs(undone) do
    if seq == passage.seq then return true end
  end
  return false
end

---Is something done that nobody can take back?
---@param passage tidemill.Passage
---@param undone integer[]
---@return boolean
function M.is_fixed(passage, undone)
  local fixed = passage.irreversible
    or passage.called and not passage.undo and passage.irreversible == nil
  return fixed and not M.is_undone(undone, passage) or false
end

---Is something done that its `undo` takes back?
---@param passage tidemill.Passage
---@param undone integer[]
---@return boolean
function M.is_open(passage, undone)
  return passage.undo ~= nil and not M.is_undone(undone, passage)
end

---The verdict on a passage, and what follows from it for the state as it was.
---@param passage tidemill.Passage
---@param was table<string, string> the state as it was before it; then as it was behind it
---@param state table as it is
---@param undone integer[]
---@param unknown table<string, true>? names that may be anything
---@return tidemill.Verdict verdict
---@return boolean may_ask it may also be asked anew: that depends on what is unknown
function M.of(passage, was, state, undone, unknown)
  local names = changed(was, replay.texts(state))
  write(was, passage.writes)
  if confirms(passage, names) then return "ask", false end
  for name in pairs(unknown or {}) do names[name] = true end
  local again = M.is_undone(undone, passage) or passage.reads.input and passage.is_resaid
    or M.reads(passage.reads, names)
  return again and "again" or "keep", confirms(passage, unknown or {})
end

---It stays: what it wrote is there.
---@param run tidemill.Run on paper or not
---@param passage tidemill.Passage
function M.keep(run, passage)
  replay.write(run.state, passage.writes)
  run.state_text = nil
end

return M
