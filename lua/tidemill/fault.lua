--- The one error shape: { code, message, retryable?, step_id?, … } with __tostring.
---
--- `caught` turns whatever was raised into it, at the task boundary and nowhere else, so that a
--- traceback is taken once.
local text = require "host.text"

local M = {}

local MESSAGE_CHARACTERS = 600
local TRACE_LINES = 12

local known = setmetatable({}, { __mode = "k" }) ---@type table<table, true>

local Fault = { __metatable = false }
function Fault.__tostring(fault)
  return ("%s: %s"):format(fault.code, fault.message)
end

---@class tidemill.Fault
---@field code string stable, for programs
---@field message string for people
---@field retryable boolean? false: another attempt cannot help
---@field fatal boolean? neither another attempt nor on_error may follow
---@field turn boolean? not the step but the whole turn failed; nothing of it may be kept
---@field status string? a name of tm_status
---@field step_id string?
---@field traceback string?

---@param code string
---@param message string
---@param more table? further members
---@return tidemill.Fault
function M.new(code, message, more)
  local fault = more or {}
  fault.code, fault.message = code, message
  known[fault] = true
  return setmetatable(fault, Fault)
end

---A fault that a script gets into its hands. It may change it; whatever of it comes back is looked
---at as any error of a script is.
---@param fault tidemill.Fault
---@return table
function M.given(fault)
  return setmetatable({ code = fault.code, message = fault.message, retryable = fault.retryable },
    Fault)
end

---Raises what a script did wrong, at the line where it did it. That line is not known when the call
---was its function's last one (`return ctx:http{…}`).
---@param message string
function M.misuse(message)
  local position = ""
  for line in debug.traceback("", 2):gmatch("[^\n]+") do
    if line:find("(...tail calls...)", 1, true) then break end
    local place = line:match("^\t(.-:%d+:) in ")
    if place and not place:find("lua/tidemill/", 1, true) then
      position = place .. " "
      break
    end
  end
  error(position .. message, 0)
end

---Raises a fault that no further attempt can mend. A script may catch it, and then has it in hand.
---@param code string
---@param message string
function M.stop(code, message)
  error(M.given { code = code, message = message, retryable = false }, 0)
end

--- Text that can be stored: valid UTF-8 of bounded length.
---@param s string
---@param characters integer?
---@return string
function M.printable(s, characters)
  if not text.valid(s) then s = s:gsub("[\128-\255]", "?") end
  s = s:gsub("%z", "?")
  local limit = characters or MESSAGE_CHARACTERS
  if text.length(s) > limit then return text.sub(s, 1, limit) .. "…" end
  return s
end

---What has happened, without what to do about it.
---@param message string
---@return string
function M.reason(message)
  return message:match "^[^;]*"
end

--- Only what a script writer wrote: the runtime's frames and C's say nothing to them.
local function script_trace(trace)
  local lines = {}
  for line in trace:gmatch("[^\n]+") do
    local own = line:find("^%s.-:%d+: in ") and not line:find("lua/tidemill/", 1, true)
    if own and #lines < TRACE_LINES then lines[#lines + 1] = line:match("^%s*(.*)$") end
  end
  return #lines > 0 and M.printable(table.concat(lines, "\n"), 2000) or nil
end

local NO_MEMORY = "not enough memory" -- what Lua says; it names no place

local UNTOLD = "a %s was raised as error; raise a text, or a table { code = …, message = … }"

--- What a value says of itself; an address says nothing.
local function raised_text(value)
  if type(value) == "string" then return value end
  local ok, s = pcall(tostring, value)
  local told = ok and value ~= nil and not s:find("^%a+: 0x%x+$")
  return told and s or UNTOLD:format(type(value))
end

--- A table that a script raised or returned as an error: { code, message, retryable }.
local function adopt(value)
  local code, message = rawget(value, "code"), rawget(value, "message")
  if type(code) ~= "string" or not code:find("^[%w_.%-]+$") or #code > 47 then
    code = "script.error"
  end
  if type(message) ~= "string" then message = raised_text(value) end
  local retryable = rawget(value, "retryable")
  return M.new(code, M.printable(message), { retryable = retryable })
end

--- Beside ctx:random() and ctx:uuid() one easily writes ctx:now().
local function hinted(message)
  if not message:find "attempt to call a number value %(%a+ 'now'%)" then return message end
  return message .. "; ctx.now is a number: write ctx.now, without a colon and ()"
end

---A fault of anything: a fault stays itself.
---@param value any
---@return tidemill.Fault
function M.of(value)
  if type(value) == "table" then
    return known[value] and value or adopt(value)
  end
  local message = raised_text(value)
  if message == NO_MEMORY then
    return M.new("script.memory", "the step needed more memory than a step may "
      .. "use; keep less at once, or raise limits.step_memory")
  end
  return M.new("script.error", M.printable(hinted(message)))
end

---The handler for xpcall: `of`, with the traceback of the place where it was raised.
---@param value any
---@return tidemill.Fault
function M.caught(value)
  if type(value) == "table" and known[value] then return value end
  local fault, trace = M.of(value), script_trace(debug.traceback("", 2))
  fault.traceback = trace
  local told = type(value) == "string" and value ~= NO_MEMORY
    or type(value) == "table" and type(rawget(value, "message")) == "string"
  if trace and not told then
    fault.message = ("%s (raised at %s)"):format(fault.message, trace:match("^(.-:%d+):"))
  end
  return fault
end

return M
