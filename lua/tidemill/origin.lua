--- What the constructors of a script made and where: kind and source line of each table, and the
--- list of findings that a load collects.
local fault = require "tidemill.fault"

local M = {}

---@type table<table, { kind: string, source: tidemill.Source }>
local made = setmetatable({}, { __mode = "k" })
local chunks = {} ---@type string[] names of the files of systems
local is_chunk = {} ---@type table<string, true>
local running = {} ---@type { name: string, text: string }[] files, each required by the one before

local UNKNOWN = { file = "?", line = 0 }

---Remembers a file, so that its name can be told from its shortened form in a traceback.
---@param name string "scripts/NAME/init.lua"
function M.add_chunk(name)
  if is_chunk[name] then return end
  chunks[#chunks + 1], is_chunk[name] = name, true
end

---The file that a traceback or an error means: long names are shortened to "...ns/init.lua".
---@param short string
---@return string
function M.full_name(short)
  local ending = short:match("^%.%.%.(.+)$")
  for i = #chunks, 1, -1 do
    if ending and chunks[i]:sub(-#ending) == ending then return chunks[i] end
  end
  return short
end

---The line where a file calls something first, by its name; 1 when it cannot be told.
---@param text string
---@param word string
---@return integer
function M.line_of(text, word)
  local at = text:find("%f[%w_]" .. word .. "%s*[%({]") or 1
  local _, line_feeds = text:sub(1, at):gsub("\n", "")
  return line_feeds + 1
end

---A file begins to run; `leave` when it has ended.
---@param name string
---@param text string
function M.enter(name, text)
  running[#running + 1] = { name = name, text = text }
end

function M.leave()
  running[#running] = nil
end

--- The nearest caller that is a script; `lost` when a tail call (`return ConversationFlow {…}`) has
--- taken the real one off the stack. Where that was a file itself, it is known which, and the line
--- is where it says `word`.
local function script_source(word)
  local lost = false
  for line in debug.traceback("", 3):gmatch("[^\n]+") do
    lost = lost or line:find("(...tail calls...)", 1, true) ~= nil
    local file = lost and line:find("lua/tidemill/sandbox.lua:", 1, true) and running[#running]
    if file then return { file = file.name, line = M.line_of(file.text, word) }, true end
    local short, number = line:match("^\t(.-):(%d+): in ")
    local name = short and M.full_name(short)
    if is_chunk[name or 1] then
      return { file = name, line = math.tointeger(tonumber(number)) }, lost
    end
  end
  return UNKNOWN, true
end

--- Where something inside `t` was made: its first step, for a flow.
local function source_inside(t)
  local first = type(t.steps) == "table" and t.steps[1]
  return first and made[first] and made[first].source
end

---Marks a table as made by a constructor, with the line of the script that called it.
---@param kind string the name of the constructor
---@param t table
function M.mark(kind, t)
  if type(t) ~= "table" then
    fault.misuse(("%s needs a table: %s { … }"):format(kind, kind))
  end
  local source, lost = script_source(kind:match "[%w_]+$")
  made[t] = { kind = kind, source = lost and source_inside(t) or source }
end

---The line of the script that runs.
---@param word string what it calls there
---@return tidemill.Source
function M.here(word)
  return (script_source(word))
end

---Marks what a builder has made, with what was wrong about what it was given.
---@param kind string the name of the constructor
---@param t table
---@param source tidemill.Source where the builder was called
---@param problems { text: string, rule: string }[]?
function M.built(kind, t, source, problems)
  made[t] = { kind = kind, source = source, problems = problems }
end

---What a builder was given wrong; empty for all other tables.
---@param t any
---@return { text: string, rule: string }[]
function M.problems(t)
  return type(t) == "table" and made[t] and made[t].problems or {}
end

---@param t any
---@return string?
function M.kind(t)
  return type(t) == "table" and made[t] and made[t].kind or nil
end

---@param t any
---@param fallback tidemill.Source?
---@return tidemill.Source
function M.source(t, fallback)
  local known = type(t) == "table" and made[t] and made[t].source
  return known and known.line > 0 and known or fallback or UNKNOWN
end

---@class tidemill.Findings
---@field items tidemill.Finding[]
---@field errors integer
local Findings = {}
Findings.__index = Findings

---@return tidemill.Findings
function M.findings()
  return setmetatable({ items = {}, errors = 0 }, Findings)
end

local MOST = 200

---@param source tidemill.Source
---@param message string
---@param rule string
---@param level ("error"|"warning")?
function Findings:add(source, message, rule, level)
  level = level or "error"
  if level == "error" then self.errors = self.errors + 1 end
  if #self.items >= MOST then return end
  self.items[#self.items + 1] = { file = source.file, line = source.line, level = level,
    text = fault.printable(message), rule = rule }
end

---A function that reports about one thing.
---@param source tidemill.Source
---@param prefix string "flow 'returns', step 'ask'"
---@return fun(text: string, rule: string, level: ("error"|"warning")?)
function Findings:reporter(source, prefix)
  return function(message, rule, level)
    self:add(source, prefix .. ": " .. message, rule, level)
  end
end

return M
