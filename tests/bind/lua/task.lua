--- The runtime of the tests of host/bind: small, but with the real shape. Code comes as text.
---
---   dispatch(0, "run", code, ...)  runs a chunk, returns tostring of its first value
---   dispatch(id, "turn", turn)     runs the chunk turn.input in a coroutine: (turn, id, await)
--- A global `on_failed(id, err)` may end a turn that broke off.
local operation = require "host.op"
local M = {}
local waiting, turns = {}, {}

local function resume(id, co, ...)
  local ok, err = coroutine.resume(co, ...)
  if not ok then
    turns[id] = nil
    error(err, 0)
  end
  if coroutine.status(co) == "dead" then turns[id] = nil end
end

local function await(op, err)
  if not op then return nil, err end
  local co = coroutine.running()
  for id, turn in pairs(turns) do
    if turn.co == co then waiting[op], turn.ops[op] = id, true end
  end
  return coroutine.yield()
end

local function settle(op, ...)
  local id = waiting[op]
  waiting[op] = nil
  local turn = turns[id]
  if not turn then return end
  turn.ops[op] = nil
  resume(id, turn.co, ...)
end

local events = {}

function events.turn(id, turn)
  local chunk = assert(load(turn.input, "@scripts/test/code.lua"))
  local co = coroutine.create(chunk)
  turns[id] = { co = co, ops = {} }
  resume(id, co, turn, id, await)
end

function events.done(op, ...) settle(op, true, ...) end

function events.failed(op, err)
  if waiting[op] then return settle(op, nil, err) end
  turns[op] = nil
  if _G.on_failed then _G.on_failed(op, err) end
end

function events.cancel(id)
  _G.CANCELLED = (_G.CANCELLED or 0) + 1
  for op in pairs(turns[id] and turns[id].ops or {}) do
    waiting[op] = nil
    operation.cancel(op)
  end
  turns[id] = nil
end

local commands = {}

function commands.run(code, ...)
  return tostring((assert(load(code, "@scripts/test/code.lua"))(...)))
end

commands.cancel = commands.run

function commands.load(name)
  local text, chunk = require("host.file").read "init.lua"
  if text then assert(load(text, chunk))() end
  return '{"name":"' .. name .. '"}'
end

function M.dispatch(op, event, ...)
  if op == 0 then return commands[event](...) end
  return events[event](op, ...)
end

return M
