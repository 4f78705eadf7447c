--- `correct`: an earlier named answer is another one, and only what depended on it runs again.
---
--- What was done since is run again on paper (path.lua), as it was and with the new answer
--- (plan.lua). A step depended on the answer when it reads a name of the state, or what the user
--- said, that is another one now; when the way leads elsewhere, all on the old one did. What did is
--- undone where it can be, the newest first, and runs again, the oldest first. The records of the
--- others stay. Whatever refuses does so before anything has happened.
local clock = require "host.clock"
local draft = require "tidemill.draft"
local execution = require "tidemill.execution"
local fault = require "tidemill.fault"
local json = require "host.json"
local journal = require "host.journal"
local path = require "tidemill.path"
local plan = require "tidemill.plan"
local replay = require "tidemill.replay"
local task = require "tidemill.task"
local transition = require "tidemill.transition"
local undo = require "tidemill.undo"
local verdict = require "tidemill.verdict"

local M = {}

--- In the runtime part while a correction is unfinished.
---@class tidemill.Correction
---@field at integer? the passage that runs; nil: what is undone
---@field step string at which the conversation waits
---@field wait table? what its prompt has come to
---@field undo integer[] seqs of the executions to undo
---@field hint string? why the answer stays as it was: only what was undone runs again

local function refuse(reason)
  error(fault.new("command.refused", reason, { status = "conflict", turn = true }), 0)
end

local function shown(name)
  return fault.printable(name, 64)
end

---- which answer ----

local function is_named(step, name)
  if step.step_type ~= "user_input" then return false end
  local by_name = step.input.by_name
  return step.step_id == name or step.save_as == name or step.collects == name
    or by_name ~= nil and by_name[name] ~= nil
end

local function named(run, name)
  local ids = json.array {}
  for id, step in pairs(run.flow.steps) do
    if is_named(step, name) then ids[#ids + 1] = id end
  end
  table.sort(ids)
  return ids
end

--- A field by its own name is changed by itself; else the answer is as a whole another one.
local function whole_answer(step, passage, name, given)
  local by_name = step.input.by_name
  local is_whole = name == step.step_id or name == step.save_as
  if not by_name or not by_name[name] or is_whole then return given end
  local answer = {}
  for field, value in pairs(passage.output) do answer[field] = value end
  answer[name] = given
  return answer
end

--- The last answer to one of the steps.
local function find(past, ids)
  local wanted = {}
  for _, id in ipairs(ids) do wanted[id] = true end
  for i = #past, 1, -1 do
    if wanted[past[i].step_id] and past[i].status == "completed" then return i end
  end
end

---- running again ----

local function leave(run)
  run.runtime.correct, run.runtime.undone, run.corrects = nil, nil, nil
  run.undo_failed, run.keeps = nil, nil
end

--- It is asked once more, the first row of its own: one can go back from there to what was before
--- the correction.
local function ask_again(run, step, wait, hint)
  local waits = run.runtime.wait
  execution.enter(run, step, waits.asked, waits.attempt)
  waits.shown = nil
  if wait.tell then
    waits.hint = hint
  elseif hint then
    draft.message(run, "prompt", hint, { step_id = step.step_id })
  end
  if step.step_type == "wait" then return wait.again(run, step) end
  return wait.enter(run, step)
end

local function back_to_prompt(run, waits)
  local correct = run.runtime.correct
  leave(run)
  run.runtime.wait = correct.wait
  local step = run.flow.steps[correct.step]
  return ask_again(run, step, waits[step.step_type], correct.hint)
end

--- From here the way is another one: what was on the old one is no part of it any more.
local function turn_off(run, passage, next_step)
  local last = run.steps[#run.steps]
  if last then last.turns = true end
  leave(run)
  run.input, run.runtime.input = passage.said, passage.said == nil and json.null or passage.said
  return next_step
end

--- What was answered does not count any more: the step asks again.
local function drop_answer(run, step, value, reason)
  draft.step(run, step, { input = value, error = { code = "input.no_match", message =
    "what was answered " .. reason } })
  transition.restore(run)
  return step.step_id, true
end

local function ask_anew(run, step, passage)
  execution.enter(run, step, clock.now(), 1)
  run.corrects = passage.seq
  return drop_answer(run, step, passage.output, "was said to something else")
end

local function record_answer(run, step, passage, value, is_skipped)
  execution.enter(run, step, clock.now(), 1)
  run.corrects = passage.seq
  local pass, next_step = replay.answer(run, step, value, is_skipped)
  if not pass then
    return drop_answer(run, step, value, "is not accepted any more: " .. next_step)
  end
  execution.complete(run, step, pass, value)
  return next_step
end

--- An answer that nobody gives again: that it fails is a fault of the step's.
local function answer_again(run, step, passage, value, is_skipped)
  local ok, next_step, asks = xpcall(record_answer, fault.caught, run, step, passage, value,
    is_skipped)
  if ok then return next_step, asks end
  return execution.fail(run, step, fault.of(next_step), value)
end

--- Effects that nobody expected to depend: a step wrote this time what it had not written before.
local function is_unforeseen(passage, undone)
  return verdict.is_fixed(passage, undone) or verdict.is_open(passage, undone)
end

--- The first one of those from a passage on.
local function kept(past, from, undone)
  for i = from, #past do
    if is_unforeseen(past[i], undone) then return past[i] end
  end
end

local function fail_unforeseen(run, passage)
  local step = run.flow.steps[passage.step_id]
  run.keeps = true
  execution.enter(run, step)
  return execution.fail(run, step, fault.new("rollback.irreversible", ("the step '%s' depends on a "
    .. "corrected answer, which could not be foreseen, and what it did stays done; look at it")
    :format(step.step_id), { fatal = true, retryable = false }))
end

--- Undoes what the passage did, and before that what was done behind it. Returns whether it may run
--- again; else the turn has ended.
local function undo_unforeseen(run, past, i)
  if not past[i].undo then return fail_unforeseen(run, past[i]) end
  run.undo_failed = function()
    run.undoing, run.runtime.attempt = nil, nil
    fail_unforeseen(run, past[i])
  end
  for behind = #past, i, -1 do
    local passage = past[behind]
    local is_open = verdict.is_open(passage, run.runtime.undone)
    if is_open and not undo.one(run, path.undo_item(past, passage.seq)) then return false end
  end
  run.undo_failed = nil
  return true
end

local function run_again(run, step, passage, visit)
  run.corrects, run.input = passage.seq, passage.said
  if step.step_type == "user_input" then
    return answer_again(run, step, passage, passage.output, passage.is_skipped)
  end
  return visit(run, step)
end

--- One passage: the next step, or nil when the turn has ended; and whether it was asked anew.
local function pass(run, past, i, answer, was, visit)
  local passage, undone = past[i], run.runtime.undone
  local step = run.flow.steps[passage.step_id]
  local what = verdict.of(passage, was, run.state, undone)
  run.keeps = kept(past, i + 1, undone) ~= nil
  if i == answer.at then return answer_again(run, step, passage, answer.value, false) end
  if what == "ask" then return ask_anew(run, step, passage) end
  if what == "keep" then
    verdict.keep(run, passage)
    return passage.next
  end
  if is_unforeseen(passage, undone) and not undo_unforeseen(run, past, i) then return nil end
  return run_again(run, step, passage, visit)
end

--- The way is another one behind a passage.
local function go_elsewhere(run, past, i, undone, next_step)
  local unforeseen = kept(past, i + 1, undone)
  if unforeseen then return fail_unforeseen(run, unforeseen) end
  return turn_off(run, past[i], next_step)
end

local function run_passages(run, past, answer, waits, visit)
  local correct, undone = run.runtime.correct, run.runtime.undone
  if not correct.at then
    run.state, run.state_text = {}, nil
    replay.write(run.state, verdict.texts_before(past, answer.at))
  end
  local first = correct.at or answer.at
  local was = verdict.texts_before(past, first)
  for i = first, #past do
    correct.at = i
    local next_step, asks = pass(run, past, i, answer, was, visit)
    if not next_step then return nil end
    if asks or next_step ~= past[i].next or not run.runtime.correct then
      return go_elsewhere(run, past, i, undone, next_step)
    end
  end
  return back_to_prompt(run, waits)
end

local function undo_all(run, past)
  local runtime = run.runtime
  for _, seq in ipairs(runtime.correct.undo) do
    local item = path.undo_item(past, seq)
    if not verdict.is_undone(runtime.undone, item) and not undo.one(run, item) then return false end
  end
  return true
end

--- With the old answer again, so that what was undone by then is done.
local function keep_answer(run, step_id, reason)
  run.runtime.correct.hint = ("The answer stays as it was, for the step '%s' could not be "
    .. "undone: %s"):format(step_id, reason)
  run.undoing, run.current, run.undo_failed, run.runtime.attempt = nil, nil, nil, nil
end

local function work(run, past, answer, waits, visit)
  local correct = run.runtime.correct
  run.undo_failed = function(step_id, reason) keep_answer(run, step_id, reason) end
  if not correct.at and not correct.hint and not undo_all(run, past) then
    return correct.hint and M.resume(run, waits, visit)
  end
  run.undo_failed = nil
  task.pause() -- what was done on paper is not on the account of the first step
  return run_passages(run, past, answer, waits, visit)
end

---- the command ----

--- As it was, and the answer in it that is to be another one.
local function read(run, ids)
  local command = run.turn.input
  local past, problem = path.read(run, command.trail)
  if not past then refuse(("'%s' cannot be corrected: %s"):format(shown(command.name), problem)) end
  local at = find(past, ids)
  if not at then
    refuse(("there is no answer '%s' that could be corrected"):format(shown(command.name)))
  end
  local step, correct = run.flow.steps[past[at].step_id], run.runtime.correct
  if correct and correct.hint then
    return past, { at = at, value = past[at].output, step = step }
  end
  local value = whole_answer(step, past[at], command.name, command.input)
  path.say(past, at, value)
  return past, { at = at, value = value, step = step }
end

local function check(run, step, wait)
  if run.runtime.frames then
    refuse(("answers cannot be corrected inside the flow '%s': end it first")
      :format(run.flow.flow_id))
  end
  local waits = run.runtime.wait
  if not wait.again or step.step_type == "parallel" or waits and waits.failed then
    refuse(("answers cannot be corrected while the step '%s' has not ended"):format(step.step_id))
  end
end

--- Of the form that is begun, which is no answer yet.
local function is_filled(run, step, name)
  local waits = run.runtime.wait
  local form = waits and not waits.failed and waits.partial
  return form and step.input.by_name[name] ~= nil and form[name] ~= nil
end

--- Why the host has nothing, for the user.
local NO_TRAIL = {
  ["command.refused"] = "it was not answered yet, or too long ago",
  ["rollback.limit"] = "too much has been done since then",
}

--- Where the user has said it at a prompt, it is refused there; else whoever has sent it gets an
--- error. Returns false when it is refused.
local function try(run, step, wait, act)
  if not run.input.said or not wait.tell then return true, act(run, step, wait) end
  local ok, past, answer, undoes = xpcall(act, fault.caught, run, step, wait)
  if ok then return true, past, answer, undoes end
  local failure, refused = fault.of(past), run.turn.refused
  if not failure.turn or failure.status ~= "conflict" then error(failure, 0) end
  local reason = refused and NO_TRAIL[refused.code] or fault.reason(failure.message)
  execution.enter(run, step, run.runtime.wait.asked, run.runtime.wait.attempt)
  wait.tell(run, step, ("'%s' stays as it was: %s."):format(shown(run.input.name), reason))
  return false
end

--- The steps whose answer it may be.
local function look_up(run, step, wait)
  check(run, step, wait)
  local name = run.input.name
  local ids = named(run, name)
  if #ids > 0 then return ids end
  refuse(("there is no answer '%s' in the flow '%s'"):format(shown(name), run.flow.flow_id))
end

local function ask_for_trail(run, step, wait)
  local refused = run.turn.refused
  if refused then
    error(fault.new(refused.code, refused.message, { status = "conflict", turn = true }), 0)
  end
  local ids, command = look_up(run, step, wait), run.input.said and run.input or nil
  local ok, err = journal.trail(run.id, ids, command)
  if not ok then error(fault.of(err), 0) end
end

---The first time that it comes: the host is asked what was done since the answer. `said`: the words
---of the user, which it was a phrase in.
---@param run tidemill.Run
---@param step tidemill.Step at which the conversation waits
---@param wait tidemill.Wait
---@return string? next_step
function M.ask(run, step, wait)
  local given = run.input
  if is_filled(run, step, given.name) then
    execution.enter(run, step, run.runtime.wait.asked, run.runtime.wait.attempt)
    return wait.change(run, step, given.name, given.input)
  end
  try(run, step, wait, ask_for_trail)
end

local function prepare(run, step, wait)
  local past, answer = read(run, look_up(run, step, wait))
  local undoes, refused = plan.make(run, past, answer)
  if not refused then return past, answer, undoes end
  if not wait.tell then refuse(refused) end
  execution.enter(run, step, run.runtime.wait.asked, run.runtime.wait.attempt)
  wait.tell(run, step, ("'%s' stays as it was. %s"):format(shown(run.input.name), refused))
end

---With the trail.
---@param run tidemill.Run
---@param step tidemill.Step at which the conversation waits
---@param wait tidemill.Wait
---@param visit fun(run: tidemill.Run, step: tidemill.Step): string?
---@param waits table<string, tidemill.Wait>
---@return string? next_step
function M.run(run, step, wait, waits, visit)
  local said, runtime = run.input.said, run.runtime
  if said then draft.message(run, "user", said, { step_id = step.step_id }) end
  local _, past, answer, undoes = try(run, step, wait, prepare)
  if not past then return nil end
  runtime.correct = { step = step.step_id, wait = runtime.wait, undo = undoes }
  runtime.wait, runtime.undone = nil, json.array(past.undone)
  return work(run, past, answer, waits, visit)
end

---Goes on with a correction that was interrupted, or with the old answer.
---@param run tidemill.Run
---@param waits table<string, tidemill.Wait>
---@param visit fun(run: tidemill.Run, step: tidemill.Step): string?
---@return string? next_step
function M.resume(run, waits, visit)
  local past, answer = read(run, named(run, run.turn.input.name))
  return work(run, past, answer, waits, visit)
end

return M
