--- Tasks: coroutines that wait for host operations.
---
--- A host primitive returns an operation id at once; the host calls dispatch(op, "data", …) any
--- number of times and then dispatch(op, "done" | "failed", …) exactly once. Everything else, who
--- waits and what cancelling means, is decided here; this is the only place that yields.
local operation = require "host.op"
local timer = require "host.timer"

local M = {}

---@class tidemill.Task
---@field thread thread
---@field ops table<integer, function|true> what it waits for; the value takes `data` events
---@field cancelled boolean?
---@field crashed fun(err: any) called when the coroutine raised
---@field id integer? of the turn it runs
---@field program tidemill.Program? of the turn it runs
---@field parent tidemill.Task? of one that runs beside the task of its turn: that one
---@field children table<tidemill.Task, true>? those beside it
---@field ready tidemill.Task[]? of its turn, those that go on before this entry ends
---@field parked boolean? it waits for `wake`
---@field woken boolean? it need not wait
---@field meter tidemill.Meter? of what it works at; runs while it does

local waiting = {} ---@type table<integer, tidemill.Task>
local tasks = {} ---@type table<thread, tidemill.Task>
local turns = {} ---@type table<integer, tidemill.Task>

---@class tidemill.Loan a coroutine of a script that runs on behalf of a task
---@field task tidemill.Task?
---@field waits boolean whether everything between it and the task can be left and resumed

local lent = setmetatable({}, { __mode = "k" }) ---@type table<thread, tidemill.Loan>

--- What a coroutine yields that waits for the host; scripts never get hold of it.
M.WAIT = setmetatable({}, { __metatable = false })

---@return tidemill.Task?
local function current()
  local thread = coroutine.running()
  local loan = lent[thread]
  return tasks[thread] or loan and loan.task
end

---Whether the function that runs can wait for the host.
---@return boolean
function M.can_wait()
  local loan = lent[coroutine.running()]
  return coroutine.isyieldable() and (not loan or loan.waits)
end

---The coroutine is about to be resumed by the one that runs: what it waits for, that one's task
---waits for.
---@param co thread
function M.lend(co)
  lent[co] = { task = current(), waits = M.can_wait() }
end

---The turn that runs; nil outside of turns.
---@return integer? id
function M.turn()
  local task = current()
  return task and (task.parent or task).id
end

---What time it is in the step that runs: the same when it runs again. nil outside of steps.
---@return integer? ms
function M.now()
  local task = current()
  return task and task.program and task.program.now()
end

local function forget(task)
  tasks[task.thread] = nil
  if task.id and turns[task.id] == task then turns[task.id] = nil end
  for op in pairs(task.ops) do
    waiting[op] = nil
    operation.cancel(op)
  end
  task.ops = {}
  if task.parent then task.parent.children[task] = nil end
  for child in pairs(task.children or {}) do M.cancel(child) end
end

local function resume(task, ...)
  local thread, meter = task.thread, task.meter
  if meter then meter:go_on() end
  local ok, err = coroutine.resume(thread, ...)
  if task.meter then task.meter:rest() end
  if not ok then
    forget(task)
    coroutine.close(thread)
    return task.crashed(err)
  end
  if task.cancelled or coroutine.status(thread) == "dead" then forget(task) end
end

---Waits for a host operation. Returns what `done` brought (true when it brought nothing), or nil
---and the error.
---@param op integer?
---@param err any? the error of a primitive that started nothing
---@param on_data function? takes the `data` events
---@return any ...
function M.await(op, err, on_data)
  if not op then return nil, err end
  local task = current()
  if not task then error("await outside a task", 2) end
  if not task.cancelled then
    waiting[op], task.ops[op] = task, on_data or true
  end
  return coroutine.yield(M.WAIT)
end

--- Resumes a task, and then those of its turn that it woke: none runs inside another.
local function go_on(task, ...)
  resume(task, ...)
  local ready = (task.parent or task).ready
  while ready and ready[1] do
    local other = table.remove(ready, 1)
    if not other.cancelled then resume(other) end
  end
end

local function start(task)
  tasks[task.thread] = task
  if task.id then turns[task.id] = task end
  go_on(task)
  return task
end

---Runs `fn()` in a coroutine of its own. `crashed(err)` is called when it raises.
---@param fn fun()
---@param crashed fun(err: any)
---@return tidemill.Task
function M.spawn(fn, crashed)
  return start { thread = coroutine.create(fn), ops = {}, crashed = crashed }
end

---- tasks of one turn ----

local function make_ready(task)
  local root = task.parent or task
  root.ready = root.ready or {}
  table.insert(root.ready, task)
end

---Runs `fn()` beside the task that runs, for the same turn; it begins when that one waits. It ends
---with its turn at the latest.
---@param fn fun()
---@param program { dropped: fun(), now: fun(): integer? }
---@return tidemill.Task
function M.branch(fn, program)
  local parent = current() --[[@as tidemill.Task]]
  local function crashed(err)
    M.cancel(parent)
    return parent.crashed(err)
  end
  local task = { thread = coroutine.create(fn), ops = {}, parent = parent, program = program,
    crashed = crashed }
  tasks[task.thread] = task
  parent.children = parent.children or {}
  parent.children[task] = true
  make_ready(task)
  return task
end

---Waits until a task of the same turn wakes this one, or has done so before.
function M.park()
  local task = current() --[[@as tidemill.Task]]
  if not task.woken then
    task.parked = true
    coroutine.yield(M.WAIT)
  end
  task.woken = nil
end

---@param task tidemill.Task
function M.wake(task)
  task.woken = true
  if not task.parked then return end
  task.parked = nil
  make_ready(task)
end

---@return tidemill.Task?
M.current = current

--- What only one task of a turn does at a time.
---@class tidemill.Gate
---@field holder tidemill.Task?
---@field queue tidemill.Task[]

---@return tidemill.Gate
function M.gate()
  return { queue = {} }
end

---@param gate tidemill.Gate
function M.enter(gate)
  local task = current()
  if not gate.holder then
    gate.holder = task
    return
  end
  table.insert(gate.queue, task)
  while gate.holder ~= task do M.park() end
end

---@param gate tidemill.Gate
function M.leave(gate)
  local following
  repeat
    following = table.remove(gate.queue, 1)
  until not following or not following.cancelled
  gate.holder = following
  if following then M.wake(following) end
end

---Drops a task: its operations are cancelled, its coroutine is never resumed again. It is not
---closed: a script's `__close` functions would run when nobody waits for them any more.
---@param task tidemill.Task
function M.cancel(task)
  local status = coroutine.status(task.thread)
  task.cancelled = true
  if status ~= "running" and status ~= "normal" then forget(task) end
  if task.program then task.program.dropped() end
end

---Lets everything else on this worker go first.
function M.pause()
  M.await(timer.start(0))
end

---How many tasks exist: for tests that look for leftovers.
---@return integer
function M.count()
  local n = 0
  for _ in pairs(tasks) do n = n + 1 end
  return n
end

local function settle(op, ...)
  local task = waiting[op]
  waiting[op] = nil
  if task then
    task.ops[op] = nil
    return go_on(task, ...)
  end
end

local operations = {}

function operations.data(op, ...)
  local task = waiting[op]
  local on_data = task and task.ops[op]
  if type(on_data) == "function" then on_data(...) end
end

function operations.done(op, ...)
  if select("#", ...) == 0 then return settle(op, true) end
  return settle(op, ...)
end

--- A turn fails as an operation does when a limit stopped its coroutine: what it had done so far
--- decides how it goes on.
function operations.failed(op, err)
  local task = turns[op]
  if not task then return settle(op, nil, err) end
  M.cancel(task)
  local stopped = task.program.stopped
  start { thread = coroutine.create(function() return stopped(err) end), ops = {}, id = op,
    program = task.program, crashed = task.crashed }
end

function operations.turn(id, turn)
  local program = require("tidemill.turn").prepare(id, turn)
  start { thread = coroutine.create(program.run), ops = {}, id = id, program = program,
    crashed = program.crashed }
end

function operations.cancel(id)
  local task = turns[id]
  if task then M.cancel(task) end
end

local commands = {}

function commands.load(name)
  return require("tidemill.system").open(name)
end

function commands.check(name)
  return require("tidemill.check").run(name)
end

function commands.render(view, json_text, columns, colour)
  local value = require("host.json").decode(json_text)
  return require("tidemill.cli.render").render(view, value, tonumber(columns), colour == "1",
    require("host.clock").now())
end

---The one entry from C; see docs/protocol.md.
---@param op integer 0 for a command, else the id of a turn or an operation
---@param event string
---@return any
function M.dispatch(op, event, ...)
  if op == 0 then
    local command = commands[event] or error("unknown command " .. tostring(event), 2)
    return command(...)
  end
  local handler = operations[event] or error("unknown event " .. tostring(event), 2)
  return handler(op, ...)
end

return M
