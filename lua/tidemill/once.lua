--- ctx:once: a function's result, recorded under its name, for all attempts of a step.
---
--- The calls that the function makes, and what it draws by chance, are its own: their keys begin
--- with the result's, so they are the same in every attempt, and where the result is known nobody
--- asks for them. Whatever else it changed would be lost where it does not run: it returns a value,
--- and may not write state.
local crypto = require "host.crypto"
local fault = require "tidemill.fault"
local json = require "host.json"
local outside = require "tidemill.outside"
local text = require "host.text"
local view = require "tidemill.view"

local M = {}

local NAME_BYTES = 200
local STEP_BYTES = 1 << 20 -- kept in the runtime part while the step is tried again

--- What a function given to ctx:once runs in; see tidemill.Run.scope.
local Scope = {}
function Scope.__close(scope) scope.run.scope = nil end

local function check(name, fn)
  if type(name) ~= "string" or name == "" or #name > NAME_BYTES or not text.valid(name) then
    fault.misuse(("ctx:once(name, fn): the name must be a text of 1 to %d bytes")
      :format(NAME_BYTES))
  end
  if type(fn) ~= "function" then
    fault.misuse("ctx:once(name, fn): a function expected, not a " .. type(fn))
  end
end

--- What was recorded before the step was interrupted counts as asked for, with the calls inside.
local function recorded(run, key)
  local result = run.calls[key]
  if result == nil then return nil end
  local inside = key .. "/"
  for other in pairs(run.calls) do
    if other == key or other:sub(1, #inside) == inside then run.calls[other] = nil end
  end
  return result.value == nil and "" or assert(json.encode(result.value))
end

--- Until the step is completed or given up.
local function keep(run, key, encoded)
  local runtime, bytes = run.runtime, #encoded
  local kept = runtime.once or {}
  for _, other in pairs(kept) do bytes = bytes + #other end
  if bytes > STEP_BYTES then
    fault.stop("step.too_large", ("the functions of ctx:once returned %d bytes in the step '%s', "
      .. "and %d are allowed; return less of what they found"):format(bytes, run.current.step_id,
      STEP_BYTES))
  end
  kept[key], runtime.once = encoded, kept
end

local function encode(value)
  if value == nil then return "" end
  local encoded, err = json.encode(value)
  if not encoded then
    fault.misuse("ctx:once: the function returned what cannot be kept: " .. err.message)
  end
  return encoded
end

local function call(run, ctx, key, fn)
  local before = json.encode(ctx.state)
  local scope <close> = setmetatable({ run = run, key = key, drawn = 0,
    thread = coroutine.running() }, Scope)
  run.scope = scope
  local value, err = fn()
  if before and json.encode(ctx.state) ~= before then
    fault.misuse("ctx:once: the function wrote ctx.state, and that is lost where it does not run "
      .. "again; let it return a value, and write that")
  end
  return value, err
end

--- A reviewer has names of its own for each reply that it looks at: what it said of another one is
--- no answer.
local function key_of(run, name)
  local reply = run.reviewing
  if not reply then return ("%s:once:%s"):format(run.first_place, crypto.digest(name, 32)) end
  return ("%s:review:%s"):format(run.first_place, crypto.digest(reply .. ":" .. name, 32))
end

--- On paper (replay.lua) the function runs, with the calls that it made: what it looks at decides
--- whether its step depends on something. What it returns must be what was recorded.
local function on_paper(run, ctx, key, fn)
  local result = run.calls[key]
  local value, err = call(run, ctx, key, fn)
  if value == nil and err ~= nil then return nil, err end
  local encoded = encode(view.opened(value, run.reads))
  local was = result and (result.value == nil and "" or assert(json.encode(result.value)))
  if encoded ~= was then outside.record(run, key, {}) end
  return encoded ~= "" and json.restore(encoded) or nil
end

---See tm.Context.once.
---@param run tidemill.Run
---@param ctx tm.Context
---@param name string
---@param fn fun(): any, any
---@return any value
---@return any err
function M.call(run, ctx, name, fn)
  check(name, fn)
  outside.ready(run, "ctx:once")
  if outside.scope(run) then
    fault.misuse("ctx:once: the function of another ctx:once runs; call them one after the other")
  end
  local key = key_of(run, name)
  if run.reads then return on_paper(run, ctx, key, fn) end
  local kept = run.runtime.once
  local encoded = kept and kept[key]
  if not encoded then
    encoded = recorded(run, key)
    if not encoded then
      local value, err = call(run, ctx, key, fn)
      if value == nil and err ~= nil then return nil, err end
      encoded = encode(value)
      outside.record(run, key, { name = name, value = encoded ~= "" and json.raw(encoded) or nil })
    end
    keep(run, key, encoded)
  end
  if encoded == "" then return nil end
  return json.restore(encoded)
end

return M
