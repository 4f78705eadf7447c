--- ctx:emit: what the world is told once the step is durable. An event waits in its run until the
--- step is recorded; that of an attempt that fails is never told. From then on it is the host's.
local clock = require "host.clock"
local fault = require "tidemill.fault"
local json = require "host.json"
local outside = require "tidemill.outside"

local M = {}

local NAME = "^[a-z][a-z0-9_.-]*$"
local NAME_BYTES, DATA_BYTES, STEP_EVENTS = 64, 64 << 10, 64

local function check(run, name)
  if type(name) ~= "string" or #name > NAME_BYTES or not name:find(NAME) then
    fault.misuse(("ctx:emit(name, data?): the name must be 1 to %d of a-z, 0-9, '_', '.' and '-', "
      .. "a letter first"):format(NAME_BYTES))
  end
  if outside.scope(run) then
    fault.misuse("ctx:emit cannot be used inside ctx:once, where it would be lost when the "
      .. "function does not run again; emit what it has returned")
  end
  if not run.system.webhooks then
    fault.stop("emit.no_webhook", ("the step '%s' emits the event '%s', and nobody is to be told; "
      .. "set webhooks.url and webhooks.secret"):format(run.current.step_id, name))
  end
end

local function encode(name, data)
  if data == nil then return "null" end
  local encoded, err = json.encode(data)
  if not encoded then
    fault.misuse(("ctx:emit: the data of '%s' cannot be kept: %s"):format(name, err.message))
  end
  if #encoded > DATA_BYTES then
    fault.stop("emit.too_large", ("the data of the event '%s' has %d bytes, and %d are allowed; "
      .. "send what identifies it, and let the other side ask"):format(name, #encoded, DATA_BYTES))
  end
  return encoded
end

---See tm.Context.emit.
---@param run tidemill.Run
---@param step tidemill.Step
---@param name string
---@param data any
---@return integer bytes that it takes in a row
function M.add(run, step, name, data)
  check(run, name)
  local encoded = encode(name, data)
  local waiting = run.emitted or {}
  if #waiting == STEP_EVENTS then
    fault.stop("emit.too_many", ("the step '%s' emits more than %d events"):format(step.step_id,
      STEP_EVENTS))
  end
  waiting[#waiting + 1] = { event = name, data = json.raw(encoded), created = clock.now(),
    system = run.system.name, flow_id = run.flow.flow_id, step_id = step.step_id }
  run.emitted = waiting
  return #encoded
end

return M
