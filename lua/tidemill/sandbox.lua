--- What a script can reach: allow-listed functions, its own folder's files, and `tidemill`.
---
--- Each system has globals of its own. While it loads, its files may define globals; afterwards
--- they are frozen, because all conversations of the system share them. Files are text, never
--- bytecode, and keep their real names in errors.
local coroutines = require "tidemill.coroutines"
local date = require "tidemill.date"
local fault = require "tidemill.fault"
local file = require "host.file"
local json = require "host.json"
local origin = require "tidemill.origin"
local view = require "tidemill.view"

local M = {}

local LOCKED = "%s cannot be set: the libraries are shared by all scripts"
local FROZEN = "the global '%s' cannot be set after load: conversations share the script's "
  .. "globals; keep it in ctx.state, or in a local variable"

local FROZEN_FIELD = "'%s' cannot be set after load: conversations share the table that a global "
  .. "holds; keep it in ctx.state, or in a local variable"

local faces = setmetatable({}, { __mode = "k" }) ---@type table<table, table> of frozen metatables

--- A class in a frozen global may be used as metatable; whoever asks for it gets its face.
local function safe_setmetatable(t, metatable)
  local face = metatable
  metatable = view.real(metatable)
  if metatable ~= face then faces[metatable] = faces[metatable] or face end
  if type(metatable) == "table" and rawget(metatable, "__gc") ~= nil then
    fault.misuse("setmetatable: __gc is not available to scripts")
  end
  if type(metatable) == "table" and rawget(metatable, "__mode") ~= nil then
    fault.misuse("setmetatable: __mode is not available to scripts: nothing that they keep is weak")
  end
  return setmetatable(t, metatable)
end

--- What the runtime hands out locked stays as it is; arrays are plain tables with a mark.
local function safe_rawset(t, key, value)
  if type(t) ~= "table" then fault.misuse("rawset: a table expected, not a " .. type(t)) end
  if getmetatable(t) == false and not json.is_array(t) then
    fault.misuse("rawset: this table belongs to the host or is frozen, and cannot be set")
  end
  return rawset(t, key, value)
end

--- How much memory there is to collect is the host's business.
local function count_garbage(option)
  if option ~= "count" then
    fault.misuse("collectgarbage: only collectgarbage(\"count\") is available to scripts; the host "
      .. "collects in time, and bounds what a step keeps (limits.step_memory)")
  end
  return collectgarbage "count"
end

local CODE = "%s is not available to scripts: code comes from files of the system's folder, by "
  .. "require"
local MACHINE = "%s is not available to scripts: they reach the world by ctx:http only"
local OUTPUT = "%s is not available to scripts: use ctx:log"
local CHANCE = "%s is not available to scripts: use ctx:random, which gives the same numbers when "
  .. "the step runs again"
local LUA = "%s is not available to scripts: %s"

--- Names that somebody who knows Lua will try, and what he is told.
local REFUSED = {
  load = CODE, loadstring = CODE, loadfile = CODE, dofile = CODE, package = CODE, module = CODE,
  io = MACHINE, debug = LUA:format("%s", "error and assert tell where they were raised, and the "
    .. "host keeps the traceback of a failed step"),
  print = OUTPUT, warn = OUTPUT,
  _G = LUA:format("%s", "globals are named directly, and frozen after load"),
  getfenv = LUA:format("%s", "Lua 5.4 has _ENV"), setfenv = LUA:format("%s", "Lua 5.4 has _ENV"),
  unpack = LUA:format("%s", "it is table.unpack"),
}

local MISSING = {
  string = { dump = CODE, pack = LUA:format("%s", "texts are UTF-8; use json or string.format"),
    unpack = LUA:format("%s", "texts are UTF-8; use string.match"), packsize = MACHINE },
  math = { random = CHANCE, randomseed = CHANCE },
  os = { execute = MACHINE, exit = MACHINE, getenv = LUA:format("%s", "settings come from the "
    .. "system's config: ctx.config"), remove = MACHINE, rename = MACHINE, tmpname = MACHINE,
    setlocale = MACHINE },
}

--- A library: its functions, and for what it lacks an error that says what to use instead.
local function library(name, functions)
  local missing = MISSING[name] or {}
  return view.lock(setmetatable(functions, { __index = function(_, key)
    local text = missing[key]
    if text then fault.misuse(text:format(name .. "." .. key)) end
  end }), LOCKED)
end

--- The metatable of texts belongs to the runtime; a class that is a frozen global stays frozen.
local function safe_getmetatable(value)
  if type(value) ~= "table" then return nil end
  local metatable = getmetatable(value)
  return metatable and faces[metatable] or metatable
end

local function pick(from, names)
  local picked = {}
  for name in names:gmatch("%S+") do picked[name] = from[name] end
  return picked
end

local safe_os = pick(date, "clock date difftime time")
local safe_coroutine = pick(coroutines,
  "close create isyieldable resume running status wrap yield")
local safe_string = pick(string,
  "byte char find format gmatch gsub len lower match rep reverse sub upper")
local safe_table = pick(table, "concat insert move pack remove sort unpack")
local safe_math = pick(math, "abs ceil floor fmod huge max maxinteger min mininteger modf pi sqrt "
  .. "tointeger type ult exp log sin cos tan asin acos atan deg rad")
local safe_utf8 = pick(utf8, "char charpattern codepoint codes len offset")

--- "abc":rep(…) must not find what string.rep hides.
local text_library = library("string", safe_string)
getmetatable("").__index = text_library

local GLOBALS = pick(_G, "assert error ipairs pairs pcall select tonumber tostring type xpcall "
  .. "rawequal rawget rawlen _VERSION")
GLOBALS.collectgarbage = count_garbage
GLOBALS.rawset = safe_rawset
GLOBALS.next = view.next
GLOBALS.setmetatable = safe_setmetatable
GLOBALS.getmetatable = safe_getmetatable
GLOBALS.string = text_library
GLOBALS.table = library("table", safe_table)
GLOBALS.math = library("math", safe_math)
GLOBALS.utf8 = library("utf8", safe_utf8)
GLOBALS.os = library("os", safe_os)
GLOBALS.coroutine = library("coroutine", safe_coroutine)

--- What lies behind the globals of every system: nothing but explanations.
local UNKNOWN = { __index = function(_, name)
  local text = REFUSED[name]
  if text then fault.misuse(text:format(name)) end
end }

---@class tidemill.Sandbox
---@field files string[] paths that were read, in order
---@field main tidemill.Source where the system is made: the first file's line with `system {`
---@field require fun(name: string): any
---@field freeze fun()
---@field is_loaded boolean? its files were read: a version has no others

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
  if #sandbox.files == 1 then
    sandbox.main = { file = name, line = origin.line_of(source, "system") }
  end
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
  if sandbox.is_loaded then
    fault.misuse(("require: '%s' was not loaded with the system; files are read only while it is "
      .. "loaded: require it at the top of a file, not in a step's function"):format(name))
  end
  fault.misuse(("require: there is no module '%s' in the system's folder (%s.lua); a script may "
    .. "require its own files and \"tidemill\", nothing else"):format(name, path))
end

--- Where the source is nested too deep, Lua raises instead of returning a message with a place.
local function placed(problem, chunk)
  local message = type(problem) == "table" and problem.message or problem
  if message:find("^[^\n]-:%d+: ") then return message end
  return ("%s:1: %s"):format(chunk:match("^@?(.*)$"), message)
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
    if not fn then error(placed(problem, chunk), 0) end
    loaded[name] = LOADING
    origin.enter(chunk:gsub("^@", ""), source)
    local _ <close> = setmetatable({}, { __close = function()
      origin.leave()
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
  setmetatable(globals, UNKNOWN)
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
    frozen, sandbox.is_loaded = true, true
    for name, value in pairs(globals) do
      local own = GLOBALS[name] == nil and type(value) == "table"
      if own and (getmetatable(value) ~= false or json.is_array(value)) then
        globals[name] = view.readonly(value, FROZEN_FIELD)
        faces[value] = globals[name]
      end
    end
  end
  return sandbox
end

return M
