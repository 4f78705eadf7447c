--- The library `coroutine` as scripts have it. Functions that wait for the host work inside them:
--- the wait passes through all of a script's coroutines to the turn's task, and the answer comes
--- back the same way. What the turn itself runs in can be neither seen nor yielded.
local fault = require "tidemill.fault"
local task = require "tidemill.task"

local M = {}

local own = setmetatable({}, { __mode = "k" }) ---@type table<thread, true> made by scripts
local waiting = setmetatable({}, { __mode = "k" }) ---@type table<thread, true> for the host

local function check(name, co)
  if own[co] then return co end
  fault.misuse(("coroutine.%s: a coroutine expected, made by coroutine.create; not a %s")
    :format(name, type(co)))
end

function M.create(fn)
  if type(fn) ~= "function" then
    fault.misuse("coroutine.create: a function expected, not a " .. type(fn))
  end
  local co = coroutine.create(fn)
  own[co] = true
  return co
end

--- Until it ends or yields of its own accord; a wait for the host is handed on.
local function run(co, ok, first, ...)
  while ok and first == task.WAIT do
    waiting[co] = true
    local answer = table.pack(coroutine.yield(task.WAIT))
    waiting[co] = nil
    local ended = table.pack(coroutine.resume(co, table.unpack(answer, 1, answer.n)))
    if not ended[1] or ended[2] ~= task.WAIT then return table.unpack(ended, 1, ended.n) end
  end
  return ok, first, ...
end

function M.resume(co, ...)
  check("resume", co)
  if waiting[co] then return false, "cannot resume a coroutine that waits for the host" end
  task.lend(co)
  return run(co, coroutine.resume(co, ...))
end

local function passed(co, ok, first, ...)
  if ok then return first, ... end
  coroutine.close(co)
  error(first, 0)
end

function M.wrap(fn)
  local co = M.create(fn)
  return function(...) return passed(co, M.resume(co, ...)) end
end

function M.yield(...)
  if not own[coroutine.running()] then
    fault.misuse("coroutine.yield: only a coroutine of your own can be yielded (coroutine.create, "
      .. "coroutine.wrap); a step that waits for something calls ctx:http")
  end
  return coroutine.yield(...)
end

function M.status(co)
  check("status", co)
  return waiting[co] and "normal" or coroutine.status(co)
end

function M.close(co)
  check("close", co)
  if waiting[co] then fault.misuse("coroutine.close: the coroutine waits for the host") end
  return coroutine.close(co)
end

function M.isyieldable()
  return own[coroutine.running()] ~= nil and coroutine.isyieldable()
end

---The coroutine of the script that runs, or nil and true where the step itself runs.
---@return thread? co
---@return boolean is_main
function M.running()
  local co = coroutine.running()
  if own[co] then return co, false end
  return nil, true
end

return M
