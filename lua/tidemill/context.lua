--- `ctx`: all that a script's function sees of a conversation. What stands behind it is kept here,
--- out of a script's reach; a ctx whose step has ended reaches nothing any more.
local template = require "tidemill.template"
local crypto = require "host.crypto"
local draft = require "tidemill.draft"
local emit = require "tidemill.emit"
local fault = require "tidemill.fault"
local json = require "host.json"
local log = require "host.log"
local once = require "tidemill.once"
local outside = require "tidemill.outside"
local task = require "tidemill.task"
local view = require "tidemill.view"

local M = {}

---@class tidemill.Behind
---@field run tidemill.Run
---@field step tidemill.Step
---@field reader string? what it is when it may neither write nor call: "a condition"
---@field seq integer of the execution that it belongs to

local behind = setmetatable({}, { __mode = "k" }) ---@type table<table, tidemill.Behind>

local STATE_REFUSAL = "ctx.state.%s cannot be written here: conditions, validate and outcome "
  .. "functions only decide; write in an action step"

local UNDO_REFUSAL = "ctx.state.%s cannot be written here: the rollback restores the state; an "
  .. "undo takes back what the step did outside"

local REVIEW_REFUSAL = "ctx.state.%s cannot be written here: a review only judges what another "
  .. "agent says"

local function own(ctx, name)
  local found = behind[ctx]
  local run = found and found.run
  if run and run.id ~= task.turn() then
    fault.misuse(("ctx:%s: this ctx belongs to another conversation; use the one that the function "
      .. "was given"):format(name))
  end
  if run and found.seq == run.seq and not run.dropped then return found end
  if type(ctx) ~= "table" then
    fault.misuse(("ctx.%s needs a colon: ctx:%s(…)"):format(name, name))
  end
  fault.misuse(("ctx:%s: the step of this ctx has ended; use the ctx that the function was given")
    :format(name))
end

--- The run of a ctx that may call.
local function caller(ctx, name)
  local found = own(ctx, name)
  if found.reader then
    fault.misuse(("ctx:%s cannot be used in %s: it only decides; call in an action step")
      :format(name, found.reader))
  end
  return found.run
end

local methods = {}

---See tm.Context in lua/meta/tidemill/context.lua.
function methods.http(ctx, request)
  local run = caller(ctx, "http")
  request = view.opened(request, run.reads)
  local answer, err = outside.http(run, request) -- no tail call: errors name lines
  return answer, err
end

function methods.once(ctx, name, fn)
  local run = caller(ctx, "once")
  local value, err = once.call(run, ctx, name, fn)
  return value, err
end

function methods.emit(ctx, name, data)
  local run = caller(ctx, "emit")
  draft.reserve(run, emit.add(run, behind[ctx].step, name, view.opened(data, run.reads)))
end

local LEVELS = { debug = true, info = true, warning = true, error = true }
local OWN_FIELDS = 5

local function log_fields(found, given)
  local shown = { conversation_id = found.run.conversation_id, step_id = found.step.step_id,
    system = found.run.system.name }
  local count = 0
  for key, value in pairs(given or {}) do
    count = count + 1
    if type(key) ~= "string" or shown[key] or count > OWN_FIELDS then
      fault.misuse(("ctx:log: fields are at most %d names with values; conversation_id, step_id "
        .. "and system are the host's"):format(OWN_FIELDS))
    end
    shown[key] = fault.printable(template.display(value), 200)
  end
  return shown
end

function methods.log(ctx, level, message, given)
  local found = own(ctx, "log")
  if found.run.reads then return end
  if not LEVELS[level] and type(message) == "string" then
    fault.misuse("ctx:log: the level must be debug, info, warning or error")
  end
  if not LEVELS[level] or type(message) ~= "string" then
    level, message, given = "info", level, message
  end
  if type(message) ~= "string" or given ~= nil and type(given) ~= "table" then
    fault.misuse("ctx:log(level?, message, fields?): the message must be a text, fields a table")
  end
  log.write(level, fault.printable(message), log_fields(found, given))
end

--- The same digits whenever the step runs again: drawn from conversation, step and position.
local function draw(run, digits)
  local scope = outside.scope(run)
  local by = scope or run
  by.drawn = (by.drawn or 0) + 1
  local seed = ("%s:%s:%d"):format(run.conversation_id, scope and scope.key or run.place, by.drawn)
  return crypto.digest(seed, digits)
end

--- As version 4 has it: chance, but for the six bits that say so.
function methods.uuid(ctx)
  local hex = draw(own(ctx, "uuid").run, 32)
  local nth = tonumber(hex:sub(17, 17), 16) % 4 + 1
  local variant = ("89ab"):sub(nth, nth)
  return ("%s-%s-4%s-%s%s-%s"):format(hex:sub(1, 8), hex:sub(9, 12), hex:sub(14, 16), variant,
    hex:sub(18, 20), hex:sub(21, 32))
end

function methods.random(ctx, low, high)
  local found = own(ctx, "random")
  if low and not high then low, high = 1, low end
  if low and (math.type(low) ~= "integer" or math.type(high) ~= "integer" or low > high) then
    fault.misuse("ctx:random(m, n): whole numbers, m at most n")
  end
  local bits = tonumber(draw(found.run, 15), 16)
  if not low then return (bits >> 7) / (1 << 53) end
  local span = high - low + 1
  if span <= 0 then fault.misuse("ctx:random(m, n): the range is too large") end
  return low + bits % span
end

local Context = {
  __metatable = false,
  __index = methods,
  __newindex = function(_, name)
    fault.misuse(("ctx.%s cannot be set: only ctx.state crosses steps; set ctx.state.%s"):format(
      template.display(name), template.display(name)))
  end,
  __close = function(ctx) behind[ctx] = nil end,
}

---What the user said, as a script gets it: only ctx.state crosses steps, so this is a copy.
---@param run tidemill.Run
---@return any
function M.input_of(run)
  local given = run.input
  if run.reads then run.reads.input = true end
  return type(given) == "table" and view.copy(given) or given
end

--- Of a run on paper: what is looked at is noted.
local Watched = {
  __metatable = false,
  __index = function(ctx, name)
    if name == "input" then return M.input_of(behind[ctx].run) end
    return methods[name]
  end,
  __newindex = Context.__newindex,
  __close = Context.__close,
}

local function make(run, step, state, reader)
  local session, watched = run.session, run.reads ~= nil
  if watched then state = view.watched(state, run.reads) end
  local ctx = setmetatable({
    state = state, input = not watched and M.input_of(run) or nil,
    config = run.system.config_view, now = run.started,
    conversation_id = run.conversation_id,
    session = { id = session.id, user_id = session.user_id,
      metadata = view.copy(session.metadata) },
    step = { id = step.step_id, attempt = run.attempt, seq = run.seq },
  }, watched and Watched or Context)
  behind[ctx] = { run = run, step = step, reader = reader, seq = run.seq }
  return ctx
end

--- The state before the step: a row that is written within it holds that.
local function remember(run)
  run.snapshot = run.snapshot or run.state_text or assert(json.encode(run.state))
end

---A ctx for a function that may write state and call the outside. Remembers the state as it was;
---to be closed when the function has returned.
---@param run tidemill.Run
---@param step tidemill.Step
---@return tm.Context
function M.writer(run, step)
  remember(run)
  run.state_text = nil
  return make(run, step, run.state)
end

---A ctx for a function that only decides.
---@param run tidemill.Run
---@param step tidemill.Step
---@param what string for the messages: "a condition"
---@return tm.Context
function M.reader(run, step, what)
  run.weighs = nil
  return make(run, step, view.readonly(run.state, STATE_REFUSAL), what)
end

---A ctx for an `undo`: it may call the outside and sees the state, to which the rollback puts an
---end. To be closed when the function has returned.
---@param run tidemill.Run
---@param step tidemill.Step
---@param state table
---@return tm.Context
function M.undoer(run, step, state)
  return make(run, step, view.readonly(state, UNDO_REFUSAL))
end

---A ctx for an agent that reviews: it may call the outside, and sees the state as the step's own
---agent left it. To be closed when the function has returned.
---@param run tidemill.Run
---@param step tidemill.Step
---@return tm.Context
function M.reviewer(run, step)
  remember(run)
  return make(run, step, view.readonly(run.state, REVIEW_REFUSAL))
end

---A script may have put anything into state: it must be keepable; encoded once, for the row too.
---It is read back at once: the next step sees what the next turn would see, shares no table with a
---script, and a state too large to be read fails the step that made it.
---@param run tidemill.Run
function M.check(run)
  local encoded, err = json.encode(run.state)
  if not encoded then
    fault.stop("state.invalid", "ctx.state cannot be kept: "
      .. err.message:gsub("^value", "ctx.state"))
  end
  if encoded:byte() ~= 123 and encoded ~= "[]" then
    fault.stop("state.invalid", "ctx.state must be a table of names, not a list")
  end
  run.state_text = encoded == "[]" and "{}" or encoded
  run.state = json.restore(run.state_text)
end

---Takes over the state that a writer left; it may have put another table in place.
---@param run tidemill.Run
---@param ctx tm.Context
function M.keep(run, ctx)
  local state = view.real(ctx.state)
  if state == run.state then return end
  if run.reads then run.reads.all = true end
  if type(state) ~= "table" then
    fault.stop("state.invalid", "ctx.state must stay a table, not a " .. type(state))
  end
  run.state = view.opened(state, run.reads)
  M.check(run) -- from here on the host writes into it
end

return M
