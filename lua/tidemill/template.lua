--- Prompt templates: compiled once at load, rendered by walking segments.
---
--- `{name}`, `{a.b}`, `{name|default}`, `{{` for a brace. Names come from the state, then from
--- `session` (`{user_id}`, `{session_id}`, `{session.metadata.x}`), then from the system's config
--- (`{name}` or `{config.name}`). An unknown name without default is a fault, never printed raw.
local fault = require "tidemill.fault"
local json = require "host.json"

local M = {}

---@class tidemill.Name
---@field name string "a.b"
---@field path (string|integer)[]
---@field default string?

---@class tidemill.Template
---@field text string the source
---@field names tidemill.Name[] in order of appearance
---@field segments (string|tidemill.Name)[]
---@field static string? what it renders to when it names nothing

---Splits "a.b.1" into its parts; nil when it is no such name.
---@param name string
---@return (string|integer)[]?
function M.path(name)
  if not name:find("^[%a_][%w_]*[%w_.]*$") or name:find("%.%.") or name:find("%.$") then return end
  local path = {}
  for part in name:gmatch("[^.]+") do path[#path + 1] = math.tointeger(tonumber(part)) or part end
  return path
end

local function parse_name(inner)
  local name, default = inner:match("^([^|]*)|(.*)$")
  name = (name or inner):match("^%s*(.-)%s*$")
  local path = M.path(name)
  if path then return { name = name, path = path, default = default } end
end

local function add_literal(segments, literal)
  if literal == "" then return end
  if type(segments[#segments]) == "string" then
    segments[#segments] = segments[#segments] .. literal
  else
    segments[#segments + 1] = literal
  end
end

---@param source string
---@return tidemill.Template? template
---@return string? problem
function M.compile(source)
  local segments, names, at = {}, {}, 1
  while true do
    local open = source:find("{", at, true)
    add_literal(segments, source:sub(at, (open or 0) - 1))
    if not open then break end
    if source:sub(open + 1, open + 1) == "{" then
      add_literal(segments, "{")
      at = open + 2
    else
      local close = source:find("}", open, true)
      if not close then return nil, "'{' is never closed; write {{ for a brace" end
      local inner = source:sub(open + 1, close - 1)
      local name = parse_name(inner)
      if not name then
        return nil, ("'{%s}' is not a name like {order_id}; write {{ for a brace"):format(inner)
      end
      segments[#segments + 1], names[#names + 1] = name, name
      at = close + 1
    end
  end
  local static = #names == 0 and table.concat(segments) or nil
  return { text = source, names = names, segments = segments, static = static }
end

local function walk(value, path, from)
  for i = from, #path do
    if type(value) ~= "table" then return nil end
    value = value[path[i]]
  end
  return value
end

--- A line for each message: what {transcript} stands for where an agent sums it up.
local function transcript_text(said)
  local lines = {}
  for i, message in ipairs(said) do
    local who = message.agent or message.role
    lines[i] = who == "note" and message.text or who .. ": " .. message.text
  end
  return table.concat(lines, "\n")
end

---What a path names in the scope of a step; nil when nothing does.
---@param path (string|integer)[]
---@param scope { state: table, session: table, config: table, reads: tidemill.Reads?,
---  transcript: tm.Said[]? }
---@return any
function M.lookup(path, scope)
  if scope.reads then scope.reads.names[path[1]] = true end
  local value = walk(scope.state, path, 1)
  if value ~= nil then return value end
  local first, session = path[1], scope.session
  if first == "session" then return walk(session, path, 2) end
  if first == "config" and path[2] then return walk(scope.config, path, 2) end
  if #path == 1 and first == "transcript" and scope.transcript then
    return transcript_text(scope.transcript)
  end
  if #path == 1 and first == "user_id" then return session.user_id end
  if #path == 1 and first == "session_id" then return session.id end
  return walk(scope.config, path, 1)
end

local function plain_list(value)
  local parts = {}
  for i, item in ipairs(value) do
    if type(item) == "table" or item == json.null then return nil end
    parts[i] = M.display(item)
  end
  return #parts > 0 and table.concat(parts, ", ") or nil
end

---A value as people read it.
---@param value any
---@return string
function M.display(value)
  local kind = math.type(value)
  if type(value) == "string" then return value end
  if kind == "integer" then return ("%d"):format(value) end
  if kind == "float" then return (("%.14g"):format(value)) end
  if value == json.null then return "" end
  if type(value) == "table" then return plain_list(value) or json.encode(value) or "" end
  return tostring(value)
end

local function fill(name, scope)
  local value = M.lookup(name.path, scope)
  if (value == nil or value == json.null) and name.default then return name.default end
  if value ~= nil then return M.display(value) end
  fault.stop("template.unknown_name", ("the template names {%s}, which is neither in state nor in "
    .. "session or config; save it in an earlier step or give a default: {%s|…}")
    :format(name.name, name.name))
end

---@param template tidemill.Template
---@param scope { state: table, session: table, config: table }
---@return string
function M.render(template, scope)
  if template.static then return template.static end
  local parts = {}
  for i, segment in ipairs(template.segments) do
    parts[i] = type(segment) == "string" and segment or fill(segment, scope)
  end
  return table.concat(parts)
end

return M
