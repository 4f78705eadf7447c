--- Calls to the outside, made once: recorded in the journal before the next one starts, answered
--- from the record when the step runs again after a crash.
local clock = require "host.clock"
local crypto = require "host.crypto"
local fault = require "tidemill.fault"
local http = require "host.http"
local json = require "host.json"
local rows = require "tidemill.rows"
local schema = require "tidemill.schema"
local task = require "tidemill.task"
local text = require "host.text"

local M = {}

local TIMEOUT_MS, TIMEOUT_LONGEST_MS = 30000, 600000
local ANSWER_VALUES = 40000 -- decoding takes the worker, and no hook interrupts it

--- Ends the step (or the turn) although a script may catch the error: whoever runs it looks again.
local function break_run(run, broken)
  run.broken = broken
  error(fault.given(broken), 0)
end

local function lost_turn(err)
  local cause = fault.of(err)
  return fault.new(cause.code, cause.message,
    { turn = true, retryable = false, status = type(err) == "table" and err.status or nil })
end

--- A call that is not recorded leaves the host; on paper (replay.lua) none does.
local function check_replay(run)
  if run.reads then
    break_run(run, fault.new("command.refused", "a call to the outside that was not made before",
      { fatal = true, retryable = false }))
  end
  local of_attempt, of_step = run.place .. ":", run.first_place .. ":"
  for key in pairs(run.calls) do
    if key:sub(1, #of_attempt) == of_attempt or key:sub(1, #of_step) == of_step then
      break_run(run, fault.new("journal.nondeterminism",
        ("the step '%s' asks for something else than before the interruption: the recorded call %s "
          .. "was not repeated. A step must ask the same again; use ctx.now and ctx:random(), not "
          .. "values from elsewhere"):format(run.current.step_id, key),
        { fatal = true, retryable = false }))
    end
  end
end

local function begin(run)
  local ok, err = rows.begin(run)
  if not ok then break_run(run, lost_turn(err)) end
end

local function append(run, key, result)
  local ok, err = rows.call(run, key, result)
  if not ok then break_run(run, lost_turn(err)) end
end

---Makes a result durable that was found without leaving the host.
---@param run tidemill.Run
---@param key string
---@param result any
function M.record(run, key, result)
  if run.broken then error(fault.given(run.broken), 0) end
  check_replay(run)
  begin(run)
  append(run, key, result)
end

---Whether a call may begin here; raises if not.
---@param run tidemill.Run
---@param name string of the function that a script called
function M.ready(run, name)
  if run.broken then error(fault.given(run.broken), 0) end
  if not task.can_wait() then
    fault.misuse(name .. " cannot wait here: not in table.sort, string.gsub or the like")
  end
end

---The function of ctx:once that runs, or nil; raises where a coroutine was left in its midst.
---@param run tidemill.Run
---@return tidemill.Scope?
function M.scope(run)
  local scope = run.scope
  if scope and coroutine.status(scope.thread) == "suspended" then
    fault.misuse("a function given to ctx:once must return before its coroutine yields: what is "
      .. "called in between would be its own")
  end
  return scope
end

---@param run tidemill.Run
---@return tidemill.Fault
local function step_timeout(run)
  local step = run.current
  return fault.new("step.timeout", ("the step '%s' (%s:%d) took longer than its %d ms; do less in "
    .. "it, or raise its timeout (for all steps: orchestrator.performance_config.step_timeout)")
    :format(step.step_id, step.source.file, step.source.line, step.timeout_ms),
    { retryable = true })
end

M.step_timeout = step_timeout

--- Milliseconds that are left to the step; nil without a limit.
local function time_left(run)
  if not run.deadline then return nil end
  local left = run.deadline - clock.monotonic()
  if left <= 0 then break_run(run, step_timeout(run)) end
  return left
end

local function headers_for(run, key, headers)
  local sent = {}
  for name, value in pairs(headers) do sent[name] = value end
  sent["Idempotency-Key"] = crypto.digest(run.conversation_id .. key, 32)
  return sent
end

--- What is recorded of an answer; nothing that could not be read back exactly.
local function recordable(answer)
  if not text.valid(answer.body) then
    return { error = { code = "http.not_text", retryable = false,
      message = "the answer is not UTF-8 text" } }
  end
  local headers = {}
  for name, value in pairs(answer.headers) do
    if text.valid(name) and text.valid(value) then headers[name] = value end
  end
  return { status = answer.status, headers = headers, body = answer.body }
end

local function perform(run, key, request)
  local left = time_left(run)
  local timeout_ms = left and math.min(request.timeout_ms, left) or request.timeout_ms
  run.called = true -- whatever becomes of it
  local answer, err = task.await(http.request {
    method = request.method, url = request.url, body = request.body,
    headers = headers_for(run, key, request.headers),
    timeout_ms = timeout_ms, max_bytes = request.max_bytes,
  })
  if answer then return recordable(answer) end
  if err.code == "http.timeout" and timeout_ms < request.timeout_ms then
    break_run(run, step_timeout(run))
  end
  return { error = { code = err.code, message = fault.printable(err.message),
    retryable = err.retryable == true } }
end

local LARGE_BYTES = 1024 -- of a part that is not copied once more

local function digest_of(request)
  local parts = { request.method, request.url, request.body or "" }
  for _, name in ipairs(schema.sorted_keys(request.headers)) do
    parts[#parts + 1] = name
    parts[#parts + 1] = request.headers[name]
  end
  for i, part in ipairs(parts) do
    local short = #part <= LARGE_BYTES
    parts[i] = #part .. (short and ":" .. part or "#" .. crypto.digest(part, 64))
  end
  return crypto.digest(table.concat(parts), 32)
end

local function next_key(run, primitive, digest)
  local scope = M.scope(run)
  local place = scope and scope.key .. "/" or run.place .. ":"
  local same = place .. primitive .. ":" .. digest
  local ordinal = (run.ordinals[same] or 0) + 1
  run.ordinals[same] = ordinal
  return same .. ":" .. ordinal
end

--- The answer as scripts see it: fresh tables, `json` decoded where the answer says it is JSON.
local function answer_of(result)
  local err = result.error
  if err then
    return nil, fault.given(err)
  end
  local answer = { status = result.status, headers = result.headers, body = result.body }
  local kind = answer.headers["content-type"]
  if kind and kind:find("[/+]json") then answer.json = json.decode(answer.body, ANSWER_VALUES) end
  return answer
end

local function check_headers(headers)
  local checked = {}
  for name, value in pairs(headers) do
    if math.type(value) then value = tostring(value) end
    if type(name) ~= "string" or not name:find("^[%w!#$%%&'*+.^_`|~-]+$") then
      fault.misuse("ctx:http: header names are texts without blanks")
    end
    if type(value) ~= "string" or value:find("[%c]") then
      fault.misuse(("ctx:http: the header '%s' must be a text without control characters")
        :format(name))
    end
    if name:lower() == "idempotency-key" then
      fault.misuse("ctx:http: Idempotency-Key is set by the host")
    end
    checked[name] = value
  end
  return checked
end

local REQUEST = { method = 1, url = 1, headers = 1, body = 1, json = 1, timeout = 1, max_bytes = 1 }

local function check_body(request, headers)
  if request.json == nil then
    if request.body ~= nil and type(request.body) ~= "string" then
      fault.misuse("ctx:http: 'body' must be a text; give a table as 'json'")
    end
    return request.body
  end
  if request.body ~= nil then fault.misuse("ctx:http: give 'body' or 'json', not both") end
  local encoded, err = json.encode(request.json)
  if not encoded then fault.misuse("ctx:http: json: " .. err.message) end
  if not headers["Content-Type"] and not headers["content-type"] then
    headers["Content-Type"] = "application/json"
  end
  return encoded
end

local function check_request(request, longest)
  if type(request) ~= "table" then
    fault.misuse("ctx:http needs a table: ctx:http { url = … }")
  end
  for key in pairs(request) do
    if not REQUEST[key] then
      fault.misuse(("ctx:http: unknown field '%s'%s"):format(tostring(key),
        schema.hint(tostring(key), REQUEST)))
    end
  end
  local method = request.method or "GET"
  if type(method) ~= "string" or not method:find("^%u+$") then
    fault.misuse("ctx:http: 'method' must be a text such as \"GET\"")
  end
  if type(request.url) ~= "string" or not request.url:find("^https?://[^%s%c]+$") then
    fault.misuse("ctx:http: 'url' must begin with http:// or https:// and have no blanks")
  end
  local timeout_ms = request.timeout == nil and TIMEOUT_MS or schema.duration(request.timeout)
  if not timeout_ms or timeout_ms < 1 or timeout_ms > TIMEOUT_LONGEST_MS then
    fault.misuse("ctx:http: 'timeout' must be a duration of at most 10 minutes")
  end
  local max_bytes = request.max_bytes or longest
  if math.type(max_bytes) ~= "integer" or max_bytes < 1 or max_bytes > longest then
    fault.misuse(("ctx:http: 'max_bytes' must be from 1 to %d; raise limits.http_response for more")
      :format(longest))
  end
  local headers = check_headers(request.headers or {})
  return { method = method, url = request.url, headers = headers,
    body = check_body(request, headers), timeout_ms = timeout_ms, max_bytes = max_bytes }
end

---One request, made once: see tm.Context.http.
---@param run tidemill.Run
---@param given table
---@return table? answer
---@return tidemill.Fault? err
function M.http(run, given)
  local request = check_request(given, run.system.http_response_limit)
  M.ready(run, "ctx:http")
  local key = next_key(run, "http", digest_of(request))
  local result = run.calls[key]
  if result ~= nil then
    run.calls[key], run.called = nil, true
    return answer_of(result)
  end
  check_replay(run)
  begin(run)
  result = perform(run, key, request)
  append(run, key, result)
  return answer_of(result)
end

return M
