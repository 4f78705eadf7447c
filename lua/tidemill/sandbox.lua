--- What a script can reach: allow-listed functions, its own folder's files, and `tidemill`.
---
--- Each system has globals of its own. While it loads, its files may define globals; afterwards
--- they are frozen, because all conversations of the system share them. Files are text, never
--- bytecode, and keep their real names in errors.
local fault = require "tidemill.fault"
local file = require "host.file"
local json = require "host.json"
local origin = require "tidemill.origin"
local view = require "tidemill.view"

local M = {}

local REPEAT_MOST_BYTES = 1 << 20
local MOVE_MOST = 1000000

local LOCKED = "%s cannot be set: the libraries are shared by all scripts"
local FROZEN = "the global '%s' cannot be set after load: conversations share the script's "
  .. "globals; keep it in ctx.state, or in a local variable"

--- insert and remove shift elements in C, as many as __len claims.
local function truly_long(name)
  local shift = table[name]
  return function(t, ...)
    local metatable
    if type(t) == "table" then metatable = getmetatable(t) end
    local own = metatable ~= nil and not json.is_array(t) and view.real(t) == t
    if own and (type(metatable) ~= "table" or rawget(metatable, "__len") ~= nil) then
      fault.misuse(("table.%s: not of a table with __len"):format(name))
    end
    return shift(t, ...)
  end
end

local FROZEN_FIELD = "'%s' cannot be set after load: conversations share the table that a global "
  .. "holds; keep it in ctx.state, or in a local variable"

local function bounded_repeat(s, n, separator)
  local unit = #tostring(s) + (separator and #tostring(separator) or 0)
  if math.type(n) == "integer" and n > 0 and unit > 0 and n > REPEAT_MOST_BYTES // unit then
    fault.misuse(("string.rep: the result would have more than %d bytes")
      :format(REPEAT_MOST_BYTES))
  end
  return string.rep(s, n, separator)
end

local function bounded_move(from, first, last, at, to)
  if math.type(first) == "integer" and math.type(last) == "integer"
    and last - first >= MOVE_MOST then
    fault.misuse(("table.move: more than %d elements"):format(MOVE_MOST))
  end
  return table.move(from, first, last, at, to)
end

--- A class that is a global may be used as metatable although it is frozen.
local function safe_setmetatable(t, metatable)
  metatable = view.real(metatable)
  if type(metatable) == "table" and rawget(metatable, "__gc") ~= nil then
    fault.misuse("setmetatable: __gc is not available to scripts")
  end
  return setmetatable(t, metatable)
end

local frozen_faces = setmetatable({}, { __mode = "k" }) ---@type table<table, table>

--- The metatable of texts belongs to the runtime; a class that is a frozen global stays frozen.
local function safe_getmetatable(value)
  if type(value) ~= "table" then return nil end
  local metatable = getmetatable(value)
  return metatable and frozen_faces[metatable] or metatable
end

local function pick(from, names)
  local picked = {}
  for name in names:gmatch("%S+") do picked[name] = from[name] end
  return picked
end

local safe_string = pick(string,
  "byte char find format gmatch gsub len lower match reverse sub upper")
safe_string.rep = bounded_repeat
local safe_table = pick(table, "concat pack sort unpack")
safe_table.insert, safe_table.remove = truly_long "insert", truly_long "remove"
safe_table.move = bounded_move
local safe_math = pick(math, "abs ceil floor fmod huge max maxinteger min mininteger modf pi sqrt "
  .. "tointeger type ult exp log sin cos tan asin acos atan deg rad")
local safe_utf8 = pick(utf8, "char charpattern codepoint codes len offset")

--- "abc":rep(…) must not find what string.rep hides.
getmetatable("").__index = view.lock(safe_string, LOCKED)

local GLOBALS = pick(_G, "assert error ipairs pairs pcall select tonumber tostring type xpcall "
  .. "rawequal rawlen _VERSION")
GLOBALS.next = view.next
GLOBALS.setmetatable = safe_setmetatable
GLOBALS.getmetatable = safe_getmetatable
GLOBALS.string = view.lock(safe_string, LOCKED)
GLOBALS.table = view.lock(safe_table, LOCKED)
GLOBALS.math = view.lock(safe_math, LOCKED)
GLOBALS.utf8 = view.lock(safe_utf8, LOCKED)

---@class tidemill.Sandbox
---@field files string[] paths that were read, in order
---@field main tidemill.Source where the system is made: the first file's line with `system {`
---@field require fun(name: string): any
---@field freeze fun()

--- `return tm.system { … }` is a tail call, so its line cannot be told from a traceback.
local function line_of_system(source)
  local at = source:find("%f[%w_]system%s*[%({]") or 1
  local _, line_feeds = source:sub(1, at):gsub("\n", "")
  return line_feeds + 1
end

--- nil when there is no such file; one that cannot be read is a mistake, and says why.
local function read(sandbox, path)
  local source, chunk = file.read(path)
  if not source then
    if chunk.code == "file.not_found" then return nil end
    fault.misuse("require: " .. chunk.message)
  end
  source = source:gsub("^\239\187\191", "") -- a byte order mark, as some editors write
  local name = chunk:gsub("^@", "")
  sandbox.files[#sandbox.files + 1] = path
  if #sandbox.files == 1 then sandbox.main = { file = name, line = line_of_system(source) } end
  origin.add_chunk(name)
  return source, chunk
end

--- A module is a file of the folder, or the init.lua of a folder in it.
local function find_module(sandbox, name)
  if type(name) ~= "string" or not name:find("^[%w_]+[%w_.]*$") or name:find("%.%.") then
    fault.misuse(("require: '%s' is no module name; modules are files of the system's own folder, "
      .. "such as \"agents\" or \"flows.returns\""):format(tostring(name)))
  end
  local path = name:gsub("%.", "/")
  local source, chunk = read(sandbox, path .. ".lua")
  if source then return source, chunk end
  source, chunk = read(sandbox, path .. "/init.lua")
  if source then return source, chunk end
  fault.misuse(("require: there is no module '%s' in the system's folder (%s.lua); a script may "
    .. "require its own files and \"tidemill\", nothing else"):format(name, path))
end

local LOADING = {}

local function make_require(sandbox, env, api)
  local loaded = { tidemill = api }
  return function(name)
    local value = loaded[name]
    if value == LOADING then
      fault.misuse(("require: '%s' requires itself, through other files"):format(tostring(name)))
    end
    if value ~= nil then return value end
    local source, chunk = find_module(sandbox, name)
    local fn, problem = load(source, chunk, "t", env)
    if not fn then error(problem, 0) end
    loaded[name] = LOADING
    local _ <close> = setmetatable({}, { __close = function()
      if loaded[name] == LOADING then loaded[name] = nil end
    end})
    value = fn(name)
    loaded[name] = value == nil and true or value
    return loaded[name]
  end
end

---A fresh sandbox. `api` is what `require "tidemill"` gives.
---@param api table
---@return tidemill.Sandbox
function M.new(api)
  local sandbox, globals, frozen = { files = {}, main = { file = "init.lua", line = 1 } }, {}, false
  for name, value in pairs(GLOBALS) do globals[name] = value end
  local env = setmetatable({}, {
    __metatable = false,
    __index = globals,
    __newindex = function(_, name, value)
      if frozen then fault.misuse(FROZEN:format(tostring(name))) end
      if GLOBALS[name] ~= nil or name == "require" then
        fault.misuse(("the global '%s' belongs to the host and cannot be set"):format(name))
      end
      globals[name] = value
    end,
  })
  sandbox.require = make_require(sandbox, env, api)
  globals.require = sandbox.require
  sandbox.freeze = function()
    frozen = true
    for name, value in pairs(globals) do
      local own = GLOBALS[name] == nil and type(value) == "table" and getmetatable(value) ~= false
      if own then
        globals[name] = view.readonly(value, FROZEN_FIELD)
        frozen_faces[value] = globals[name]
      end
    end
  end
  return sandbox
end

return M
