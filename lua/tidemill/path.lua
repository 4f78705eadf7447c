--- The way that a conversation has come since an answer, read from its trail: one passage for each
--- step on it, as it was run last, and by running it again on paper what each of them looked at and
--- wrote. Where that is not known, the reason is said instead.
local json = require "host.json"
local replay = require "tidemill.replay"
local task = require "tidemill.task"

local M = {}

---@class tidemill.Past: tidemill.Passage[]
---@field texts table<string, string> the state before the first
---@field undone integer[] seqs of executions that were undone and did not run again

local OPAQUE = { approval = true, parallel = true, subflow = true, wait = true }

local function cut(list, from)
  for i = #list, from, -1 do list[i] = nil end
end

local function is_again(last, record)
  return last ~= nil and last.status == "failed" and last.step_id == record.step_id
    and record.attempt == last.attempt + 1
end

--- Whatever an attempt before has called stays called.
local function put(list, at, i, record)
  local last = list[i]
  if is_again(last, record) then record.called = record.called or last.called end
  list[i], at[record.seq] = record, i
end

--- A record that stands for another one takes its place; where the way was another one from there,
--- what lay behind it does not belong to it.
local function replace(list, at, record)
  local i = at[record.corrects]
  if not i then return end
  put(list, at, i, record)
  if record.turns then cut(list, record.status == "completed" and i + 1 or i) end
end

local function append(list, at, record)
  put(list, at, is_again(list[#list], record) and #list or #list + 1, record)
end

--- Flows that were in between, and branches, have states of their own.
local function passages(steps)
  local list, at, undone = {}, {}, {}
  for _, record in ipairs(steps) do
    if record.undoes then
      if record.status == "completed" then undone[#undone + 1] = record.undoes end
    elseif record.corrects then
      replace(list, at, record)
    elseif not record.branch and not record.flow then
      append(list, at, record)
    end
  end
  return list, undone
end

local function recorded_calls(calls)
  local results, by_seq = {}, {}
  for _, call in ipairs(calls) do
    results[call.key] = call.result
    by_seq[math.tointeger(tonumber(call.key:match "^%d+"))] = true
  end
  return results, by_seq
end

local function was_called(passage, by_seq)
  for seq = passage.seq - passage.attempt + 1, passage.seq do
    if by_seq[seq] then return true end
  end
  return false
end

--- What its record says, and what the user had said last.
local function describe(list, by_seq)
  local said
  for _, passage in ipairs(list) do
    if passage.type == "user_input" then
      passage.is_skipped, said = passage.input == nil, passage.input
      if passage.output == nil then passage.output = json.null end
    end
    passage.said, passage.is_resaid = said, false
    passage.called = passage.type ~= "user_input"
      and (passage.called or was_called(passage, by_seq))
    passage.effects = passage.called or passage.undo ~= nil or passage.irreversible == true
  end
end

local function same(a, b)
  return json.encode(a == nil and json.null or a) == json.encode(b == nil and json.null or b)
end

---What the step did then, done again.
local function look(paper, step, passage, following)
  local given = passage.type == "user_input"
    and { answer = passage.output, is_skipped = passage.is_skipped }
  if step.review and passage.attempt > 1 then return false end -- it knew why it was rejected
  passage.confirmed = replay.confirmed(paper, step)
  local seen = replay.run(paper, step, passage, given or nil)
  if not seen or seen.next ~= following then return false end
  local raw = seen.pass.raw
  local output = raw == nil and seen.pass.output or raw
  if not given and not passage.reply and not same(passage.output, output) then return false end
  passage.reads, passage.writes, passage.next = seen.reads, seen.writes, seen.next
  passage.result = seen.pass.output
  return true
end

--- The budget of time and memory is that of one step: each has its own, and others go first.
local function look_all(run, list, paper, waits_at)
  for i, passage in ipairs(list) do
    local step = run.flow.steps[passage.step_id]
    local following = list[i + 1] and list[i + 1].step_id or waits_at
    if not step or passage.status ~= "completed" then
      return ("the step '%s' has failed since then"):format(passage.step_id)
    end
    if OPAQUE[step.step_type] or step.metadata.conversation_summary then
      return ("the step '%s' (%s) has come between, and nobody knows what in it depended on the "
        .. "answer"):format(passage.step_id, step.step_type)
    end
    if not look(paper, step, passage, following) then
      return ("the step '%s' does not come out again as it did: it looks at something that is not "
        .. "recorded, or the way did not lead on from it"):format(passage.step_id)
    end
    task.pause()
  end
end

--- Whatever was not seen on paper has left something else.
local function differs(state, paper)
  local was, now, names = replay.texts(state), replay.texts(paper), {}
  for name, text in pairs(was) do
    if now[name] ~= text then names[#names + 1] = name end
  end
  for name in pairs(now) do
    if not was[name] then names[#names + 1] = name end
  end
  table.sort(names)
  return #names > 0 and "the state does not come out again as it is: " .. table.concat(names, ", ")
end

---@param run tidemill.Run
---@param trail { steps: table[], calls: table[], state: table, undone: integer[]? }
---@return tidemill.Past? past
---@return string? problem
function M.read(run, trail)
  local list, undone = passages(trail.steps)
  table.move(trail.undone or {}, 1, #(trail.undone or {}), #undone + 1, undone)
  local calls, by_seq = recorded_calls(trail.calls)
  describe(list, by_seq)
  local kept = run.runtime.correct
  local past = list ---@type tidemill.Past
  past.texts, past.undone = replay.texts(trail.state), undone
  local state = {}
  replay.write(state, past.texts)
  local paper = replay.paper(run, state, calls)
  local problem = look_all(run, list, paper, kept and kept.step or run.turn.step)
  problem = problem or not kept and differs(run.state, paper.state)
  if problem then return nil, problem end
  return past
end

---The user has said something else: in that turn other words are there to be looked at.
---@param past tidemill.Past
---@param at integer
---@param value any
function M.say(past, at, value)
  local is_resaid = not same(past[at].said, value)
  for i = at, #past do
    if i > at and past[i].type == "user_input" then return end
    past[i].said, past[i].is_resaid = value, is_resaid
  end
end

---What its `undo` gets.
---@param past tidemill.Past
---@param seq integer
---@return table item
function M.undo_item(past, seq)
  for _, passage in ipairs(past) do
    if passage.seq == seq then
      return { seq = seq, step_id = passage.step_id, output = passage.result, undo = passage.undo }
    end
  end
  error("no execution " .. seq)
end

return M
