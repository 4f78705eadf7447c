--- What a corrected answer makes of the way behind it, found out on paper before anything happens:
--- which steps depend on it, which of those cannot be taken back, and what is undone first. What
--- comes of a step that has to call the outside is not known: names that it writes may then be
--- anything, and where it may lead elsewhere, whatever has effects behind it depends on it.
local fault = require "tidemill.fault"
local replay = require "tidemill.replay"
local task = require "tidemill.task"

local M = {}

---@class tidemill.Answer that is another one
---@field at integer its passage
---@field step tidemill.Step
---@field value any

---The names whose values differ.
---@param was table<string, string>
---@param now table<string, string>
---@return table<string, true>
function M.changed(was, now)
  local names = {}
  for name, text in pairs(was) do
    if now[name] ~= text then names[name] = true end
  end
  for name in pairs(now) do
    if not was[name] then names[name] = true end
  end
  return names
end

---@param texts table<string, string>
---@param writes table<string, string|false>
function M.write(texts, writes)
  for name, text in pairs(writes) do texts[name] = text or nil end
end

---The state before a passage, by name.
---@param past tidemill.Past
---@param at integer
---@return table<string, string>
function M.texts_at(past, at)
  local texts = {}
  for name, text in pairs(past.texts) do texts[name] = text end
  for i = 1, at - 1 do M.write(texts, past[i].writes) end
  return texts
end

---Was the user asked to confirm what is something else now?
---@param passage tidemill.Passage
---@param names table<string, true>
---@return boolean
function M.asks_anew(passage, names)
  for name in pairs(passage.confirmed or {}) do
    if names[name] then return true end
  end
  return false
end

local function reads(passage, names)
  if passage.reads.all and next(names) then return true end
  for name in pairs(names) do
    if passage.reads.names[name] then return true end
  end
  return false
end

---Did the passage look at what is something else now?
---@param passage tidemill.Passage
---@param names table<string, true>
---@return boolean
function M.touches(passage, names)
  return passage.reads.input and passage.is_resaid or reads(passage, names)
end

--- Where it fails for good, the conversation may also wait at it, and go on to all that is behind.
local function may_turn_off(flow, step)
  return step.condition ~= nil or step.classify or step.has_outcome or step.on_error ~= nil
    or flow.inherited.auto_recovery or flow.inherited.resume_on_failure
end

---@class tidemill.Sketch
---@field run tidemill.Run
---@field past tidemill.Past
---@field paper tidemill.Run with the state as it would be
---@field was table<string, string> as it was
---@field unknown table<string, true> names that may be anything
---@field is_open boolean the way may be another one from here
---@field depends tidemill.Passage[]

local function all_behind(sketch, at)
  for i = at, #sketch.past do sketch.depends[#sketch.depends + 1] = sketch.past[i] end
  return true
end

local function keep(sketch, passage)
  replay.write(sketch.paper.state, passage.writes)
  sketch.paper.state_text = nil
  for name in pairs(passage.writes) do sketch.unknown[name] = nil end
  if sketch.is_open and passage.effects then sketch.depends[#sketch.depends + 1] = passage end
end

--- Nothing has happened yet, and it need not.
local function check_failure(step, failure)
  if not failure or step.on_error then return end
  error(fault.new("command.refused", ("the step '%s' fails with that answer: %s")
    :format(step.step_id, failure.message), { status = "conflict", turn = true }), 0)
end

--- Runs it where all that it reads is known, what it reads only this time included.
local function try(sketch, step, passage)
  local is_answer = passage.type == "user_input"
  local seen, _, failure = replay.run(sketch.paper, step, passage, is_answer
    and { answer = passage.output, is_skipped = passage.is_skipped } or nil)
  if not seen or not reads(seen, sketch.unknown) then return seen, failure, true end
  for name in pairs(seen.writes) do sketch.unknown[name] = true end
  return nil, nil, false
end

--- Returns whether the way is another one from there.
local function redo(sketch, i)
  local passage = sketch.past[i]
  local step = sketch.run.flow.steps[passage.step_id]
  local known = not passage.effects and not sketch.is_open and not reads(passage, sketch.unknown)
  local seen, failure
  if known then seen, failure, known = try(sketch, step, passage) end
  sketch.depends[#sketch.depends + 1] = passage
  if seen then return seen.next ~= passage.next and all_behind(sketch, i + 1) end
  check_failure(step, failure)
  if known and passage.type == "user_input" then return all_behind(sketch, i + 1) end
  for name in pairs(passage.writes) do sketch.unknown[name] = true end
  sketch.is_open = sketch.is_open or known or may_turn_off(sketch.run.flow, step)
  return false
end

--- Returns whether the way goes on as it did.
local function follow(sketch, i)
  local passage = sketch.past[i]
  local names = M.changed(sketch.was, replay.texts(sketch.paper.state))
  if M.asks_anew(passage, names) then return not all_behind(sketch, i) end
  sketch.is_open = sketch.is_open or M.asks_anew(passage, sketch.unknown)
  for name in pairs(sketch.unknown) do names[name] = true end
  local elsewhere = false
  if M.touches(passage, names) then elsewhere = redo(sketch, i) else keep(sketch, passage) end
  task.pause()
  M.write(sketch.was, passage.writes)
  return not elsewhere
end

local function check_reversible(depends, undone)
  local names, seen = {}, {}
  for _, passage in ipairs(depends) do
    local fixed = passage.irreversible
      or passage.called and not passage.undo and not passage.reversible
    if fixed and not undone[passage.seq] and not seen[passage.step_id] then
      seen[passage.step_id], names[#names + 1] = true, passage.step_id
    end
  end
  if #names == 0 then return end
  error(fault.new("rollback.irreversible", ("these steps depend on the answer, and what they did "
    .. "outside cannot be taken back: %s; it stays as it was"):format(table.concat(names, ", ")),
    { status = "conflict", turn = true }), 0)
end

local function to_undo(depends, undone)
  local seqs = {}
  for i = #depends, 1, -1 do
    if depends[i].undo and not undone[depends[i].seq] then seqs[#seqs + 1] = depends[i].seq end
  end
  return seqs
end

---Raises when something cannot be taken back.
---@param run tidemill.Run
---@param past tidemill.Past
---@param answer tidemill.Answer
---@return integer[]? undo seqs, the newest first; nil: the answer is not accepted
---@return string? reason
function M.make(run, past, answer)
  local state, undone = {}, {}
  replay.write(state, M.texts_at(past, answer.at))
  for _, seq in ipairs(past.undone) do undone[seq] = true end
  local passage = past[answer.at]
  local sketch = { run = run, past = past, paper = replay.paper(run, state, {}), unknown = {},
    was = M.texts_at(past, answer.at + 1), is_open = false, depends = {} }
  local seen, reason = replay.run(sketch.paper, answer.step, passage,
    { answer = answer.value, is_skipped = false })
  if not seen then return nil, reason or "The answer is not accepted." end
  local goes_on = seen.next == passage.next or not all_behind(sketch, answer.at + 1)
  for i = answer.at + 1, #past do goes_on = goes_on and follow(sketch, i) end
  check_reversible(sketch.depends, undone)
  return to_undo(sketch.depends, undone)
end

return M
