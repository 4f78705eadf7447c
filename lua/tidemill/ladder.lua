--- Ladders of a prompt: what is done the first, second, … time that an answer is not understood
--- (on_no_match), and when nobody has answered for so long (on_no_input).
local fields = require "tidemill.fields"
local schema = require "tidemill.schema"
local template = require "tidemill.template"

local M = {}

--- One rung: `say` is what the user is told; `go` a step that follows instead; `close` ends the
--- conversation.
---@class tidemill.Rung
---@field after_ms integer? of on_no_input: since the prompt
---@field say tidemill.Template?
---@field go string?
---@field close boolean?

local function compile_text(source, what, report)
  local compiled, problem = template.compile(source)
  if not compiled then report(("%s: %s"):format(what, problem), "templates") end
  return compiled
end

local function compile_match(given, what, report)
  if type(given) == "string" then return { say = compile_text(given, what, report) } end
  if type(given) ~= "table" then
    return report(("%s: must be a text, or { go = \"a step\" }"):format(what), "fields")
  end
  return schema.check(fields.no_match_rung, given, what, report) and { go = given.go } or nil
end

local function count(...)
  local n = 0
  for i = 1, select("#", ...) do n = n + (select(i, ...) and 1 or 0) end
  return n
end

local function compile_silence(given, what, report)
  if type(given) ~= "table" then
    return report(("%s: must be { after = …, say = … }"):format(what), "fields")
  end
  if not schema.check(fields.no_input_rung, given, what, report) then return nil end
  if count(given.say, given.go, given.close) ~= 1 then
    return report(("%s: give one of 'say', 'go' and 'close'"):format(what), "fields")
  end
  local after_ms = schema.duration(given.after)
  if after_ms < 1 then
    return report(("%s: 'after' must be more than 0"):format(what), "fields")
  end
  return { after_ms = after_ms, go = given.go, close = given.close,
    say = given.say and compile_text(given.say, what, report) }
end

--- What follows a rung that leaves the prompt would never be reached.
local function check_order(rungs, field, report)
  for i, rung in ipairs(rungs) do
    local before = rungs[i - 1]
    if before and not before.say then
      report(("%s, %d: the rung before it leaves the prompt, so this one is never reached")
        :format(field, i), "fields")
    elseif before and before.after_ms and rung.after_ms <= before.after_ms then
      report(("%s, %d: 'after' counts from the prompt, so it must be more than that of the rung "
        .. "before"):format(field, i), "fields")
    end
  end
end

local function compile(given, field, compile_rung, report)
  if given == nil then return nil end
  local rungs = {}
  if #given == 0 then report(("'%s' needs at least one rung"):format(field), "fields") end
  for i, one in ipairs(given) do
    local rung = compile_rung(one, ("%s, %d"):format(field, i), report)
    if not rung then return rungs end
    rungs[i] = rung
  end
  check_order(rungs, field, report)
  return rungs
end

---@param given any[]?
---@param report fun(text: string, rule: string)
---@return tidemill.Rung[]? nil: none was given
function M.no_match(given, report)
  return compile(given, "on_no_match", compile_match, report)
end

---@param given any[]?
---@param report fun(text: string, rule: string)
---@return tidemill.Rung[]?
function M.no_input(given, report)
  return compile(given, "on_no_input", compile_silence, report)
end

---The ladder that a timeout is: it closes the conversation.
---@param timeout_ms integer 0: none
---@return tidemill.Rung[]
function M.of_timeout(timeout_ms)
  return timeout_ms > 0 and { { after_ms = timeout_ms, close = true } } or {}
end

---The steps that the rungs go to.
---@param rungs tidemill.Rung[]?
---@return string[]
function M.targets(rungs)
  local targets = {}
  for _, rung in ipairs(rungs or {}) do targets[#targets + 1] = rung.go end
  return targets
end

return M
