--- What a corrected answer makes of the way behind it, found out on paper before anything happens:
--- which steps depend on it, which of those cannot be taken back, and what is undone first. What
--- comes of a step that has to call the outside is not known: names that it writes may then be
--- anything, and where it may lead elsewhere, whatever has effects behind it depends on it.
local fault = require "tidemill.fault"
local replay = require "tidemill.replay"
local task = require "tidemill.task"
local verdict = require "tidemill.verdict"

local M = {}

---@class tidemill.Answer that is another one
---@field at integer its passage
---@field step tidemill.Step
---@field value any

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
  verdict.keep(sketch.paper, passage)
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
  if not seen or not verdict.reads(seen.reads, sketch.unknown) then return seen, failure, true end
  for name in pairs(seen.writes) do sketch.unknown[name] = true end
  return nil, nil, false
end

--- Returns whether the way is another one from there.
local function redo(sketch, i)
  local passage = sketch.past[i]
  local step = sketch.run.flow.steps[passage.step_id]
  local known = not passage.effects and not sketch.is_open
    and not verdict.reads(passage.reads, sketch.unknown)
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
  local what, may_ask = verdict.of(passage, sketch.was, sketch.paper.state, sketch.past.undone,
    sketch.unknown)
  if what == "ask" then return not all_behind(sketch, i) end
  sketch.is_open = sketch.is_open or may_ask
  local elsewhere = false
  if what == "again" then elsewhere = redo(sketch, i) else keep(sketch, passage) end
  task.pause()
  return not elsewhere
end

local function check_reversible(depends, undone)
  local names, seen = {}, {}
  for _, passage in ipairs(depends) do
    if verdict.is_fixed(passage, undone) and not seen[passage.step_id] then
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
    if verdict.is_open(depends[i], undone) then seqs[#seqs + 1] = depends[i].seq end
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
  local state = {}
  replay.write(state, verdict.texts_before(past, answer.at))
  local passage = past[answer.at]
  local sketch = { run = run, past = past, paper = replay.paper(run, state, {}), unknown = {},
    was = verdict.texts_before(past, answer.at + 1), is_open = false, depends = {} }
  local seen, reason = replay.run(sketch.paper, answer.step, passage,
    { answer = answer.value, is_skipped = false })
  if not seen then return nil, reason or "The answer is not accepted." end
  local goes_on = seen.next == passage.next or not all_behind(sketch, answer.at + 1)
  for i = answer.at + 1, #past do goes_on = goes_on and follow(sketch, i) end
  check_reversible(sketch.depends, past.undone)
  return to_undo(sketch.depends, past.undone)
end

return M
