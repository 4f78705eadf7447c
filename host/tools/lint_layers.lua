-- lint_layers.lua FILE...: fails when a file includes or requires what its layer may not know, or
-- has no layer. The tables below are the architecture. Run from the root of the tree; the paths are
-- relative to it.

local STORE, API = "persistence/store.h", "host/include/tidemill.h"
local CODEC, KEYS = "persistence/codec.h", "persistence/keyring.h"
local ACCESS, STORAGE = "host/storage/access.h", "host/storage/storage.h"
local REPLY_JOB = "host/storage/reply_job.h"
local JOURNAL, BUNDLE = "host/journal/journal.h", "host/journal/bundle.h"

-- Most specific first. `c`: what a file may include, as prefixes of paths in the tree. `lua`: what
-- it may require, as names; one that ends in a dot stands for all below it. `own`: or a module in
-- the same system's folder. `flat`: its folders are no part of it. `free`: it may know everything.
local layers = {
  { "host/include/", c = {} },
  { "host/core/", c = { API, "host/core/" } },
  { "host/loop/", c = { API, "host/core/", "host/loop/" } },
  { "host/net/", c = { API, "host/core/", "host/loop/", "host/net/" } },
  { "host/storage/", c = { API, "host/core/", "host/loop/", "host/storage/", STORE, CODEC } },
  { "host/journal/", c = { API, "host/core/", "host/loop/", "host/journal/", ACCESS, STORAGE } },
  { "host/keeping/copy", c = { "host/core/", "host/keeping/copy", STORE } },
  { "host/keeping/", c = { API, "host/core/", "host/loop/", "host/keeping/", ACCESS, STORAGE,
                           REPLY_JOB, JOURNAL, BUNDLE, "host/journal/checkpoint.h" } },
  { "host/outbox/", c = { API, "host/core/", "host/loop/", "host/net/", "host/outbox/", ACCESS,
                         STORAGE, REPLY_JOB } },
  { "host/config/", c = { API, "host/core/", "host/config/" } },
  { "host/api/", c = { API, "host/core/", "host/net/", "host/api/", STORE } },
  { "host/bind/", c = { API, "host/core/", "host/loop/", "host/net/", "host/bind/", JOURNAL,
                        BUNDLE } },
  { "host/tools/", free = true },
  { "host/main", c = { API, "host/main" } },
  { "host/", flat = true,
             c = { API, "host/core/", "host/loop/", "host/net/", "host/config/", "host/api/",
                   "host/bind/", STORAGE, JOURNAL, BUNDLE, "host/journal/reader.h",
                   "host/keeping/copy.h", "host/keeping/janitor.h", "host/keeping/reseal.h",
                   "host/keeping/session.h", "host/keeping/versions.h",
                   "host/outbox/deliver.h", "host/outbox/event_id.h",
                   "host/outbox/list.h", STORE, CODEC, KEYS,
                   "host/*.h" } },
  { "persistence/", flat = true, c = { API, "host/core/", "persistence/" } },
  { "bench/", c = { API, "bench/" }, free = "lua" },
  { "lua/tidemill/", lua = { "tidemill", "tidemill.", "host." } },
  { "lua/meta/", lua = {} },
  { "scripts/", lua = { "tidemill" }, own = true },
}

-- Wherever nothing may wait for a socket or an event loop.
local BELOW = { "host/core/", "host/config/", "host/keeping/copy", "persistence/" }

-- Headers of libraries that belong to one part, and what the parts below must not know at all.
local libraries = {
  { "^lua", only = "host/bind/" },
  { "^lauxlib%.h", only = "host/bind/" },
  { "^microhttpd%.h$", only = "host/net/" },
  { "^curl/", only = "host/net/" },
  { "^yaml%.h$", only = "host/config/" },
  { "^zstd", only = "persistence/" },
  { "^sqlite3", only = "persistence/", but = "bench/limit.c" },
  { "^hiredis/", only = "persistence/store_redis" },
  { "libpq", only = "persistence/store_postgres" },
  { "^uv%.h$", never = BELOW },
  { "^pthread%.h$", never = { "host/core/", "host/config/", "host/keeping/copy" } },
  { "^threads%.h$", never = { "host/core/", "host/config/", "host/keeping/copy" } },
  { "^sys/socket%.h$", never = BELOW, but = "persistence/store_redis_conn.c" },
  { "^netinet/", never = BELOW },
  { "^arpa/", never = BELOW },
  { "^netdb%.h$", never = BELOW },
}

local found = 0

local function report(path, line, ...)
  found = found + 1
  print(("%s:%d: %s"):format(path, line, string.format(...)))
end

local function starts(text, prefix)
  return text:sub(1, #prefix) == prefix
end

local function layer_of(path)
  for _, layer in ipairs(layers) do
    if starts(path, layer[1]) and not (layer.flat and path:find("/", #layer[1] + 1, true)) then
      return layer
    end
  end
end

local function exists(path)
  local file = io.open(path)
  if file then file:close() end
  return file ~= nil
end

-- The file of the tree that an include finds: where `beside` beside the includer, then where -I
-- looks.
local function resolve(path, name, beside)
  local here = beside and path:match("^(.*/)") or ""
  for _, folder in ipairs { here, "", "host/", "host/include/" } do
    if exists(folder .. name) then return folder .. name end
  end
end

-- Of which backend a file is.
local function backend_of(path)
  return path:match("^persistence/store_(%l+)")
end

local function allowed(list, path)
  for _, entry in ipairs(list) do
    if entry == "host/*.h" and path:match("^host/[^/]+%.h$") and not starts(path, "host/main") then
      return true
    end
    if path == entry or (not entry:find("%.h$") and starts(path, entry)) then return true end
  end
  return false
end

local function check_library(path, n, layer, library)
  for _, rule in ipairs(libraries) do
    local refused = rule.only and not starts(path, rule.only)
    for _, one in ipairs(rule.never or {}) do refused = refused or one == layer[1] end
    if refused and path ~= rule.but and library:match(rule[1]) then
      report(path, n, "%s may not use <%s>", layer[1], library)
    end
  end
end

local function check_include(path, n, layer, text)
  local directive = text:gsub("/%*.-%*/", " "):match("^%s*#%s*include(.*)")
  if not directive then return end
  local open, name = directive:match('^%s*([<"])([^">]+)[">]')
  if not name then return report(path, n, "write what is included as <name> or \"name\"") end
  if name:find("..", 1, true) then
    report(path, n, "write %q from host/ or from the root", name)
  end
  local target = resolve(path, name, open == '"')
  if not target and open == "<" then return check_library(path, n, layer, name) end
  target = target or name
  local backend = backend_of(target)
  if not allowed(layer.c, target) or (backend and backend ~= backend_of(path)) then
    report(path, n, "%s may not include %q", layer[1], target)
  end
end

local function may_require(path, layer, name)
  for _, entry in ipairs(layer.lua) do
    if name == entry or (entry:sub(-1) == "." and starts(name, entry)) then return true end
  end
  local folder = layer.own and path:match("^scripts/[^/]+/")
  if not folder then return false end
  local file = folder .. name:gsub("%.", "/")
  return exists(file .. ".lua") or exists(file .. "/init.lua")
end

-- The tokens of a Lua text, { kind, text, line }: names, strings (of their insides) and single
-- characters; no comments.
local function tokens_of(text)
  local list, at, line = {}, 1, 1
  local function take(kind, inside, to)
    if kind then list[#list + 1] = { kind = kind, text = inside, line = line } end
    line = line + select(2, text:sub(at, to):gsub("\n", ""))
    at = to + 1
  end
  local function take_long(kind, from)
    local _, open, level = text:find("^%[(=*)%[", from)
    if not open then return false end
    local last, to = text:find("]" .. level .. "]", open + 1, true)
    take(kind, text:sub(open + 1, (last or #text) - 1), to or #text)
    return true
  end
  local function take_quoted(quote)
    local to = at + 1
    while to < #text and text:sub(to, to) ~= quote do
      to = to + (text:sub(to, to) == "\\" and 2 or 1)
    end
    take("string", text:sub(at + 1, to - 1), to)
  end
  while at <= #text do
    local char, word = text:sub(at, at), text:match("^[%a_][%w_]*", at)
    if word then
      take("name", word, at + #word - 1)
    elseif text:find("^%-%-", at) then
      if not take_long(nil, at + 2) then take(nil, nil, text:find("\n", at, true) or #text) end
    elseif char == '"' or char == "'" then
      take_quoted(char)
    elseif not take_long("string", at) then
      take(not char:find("%s") and "char", char, at)
    end
  end
  return list
end

local function is_char(token, char)
  return token and token.kind == "char" and token.text == char
end

-- What stands behind the word: the name that is required, or true where that is not to be told.
local function required(list, i)
  local first, second, third = list[i + 1], list[i + 2], list[i + 3]
  if is_char(list[i - 1], ".") then return true end
  local name = first
  if is_char(first, "(") then
    name = second
    if not is_char(third, ")") then return true end
  end
  if name and name.kind == "string" and not name.text:find("\\", 1, true) then return name.text end
  return not is_char(first, "=") or is_char(second, "=")
end

local function check_requires(path, layer, text)
  local list = tokens_of(text)
  for i, token in ipairs(list) do
    local name = token.text == "require" and (token.kind == "name" and required(list, i)
      or token.kind == "string" and is_char(list[i - 1], "["))
    if name == true and layer.own then
      report(path, token.line, "%s may only require a literal name", layer[1])
    elseif name and name ~= true and not may_require(path, layer, name) then
      report(path, token.line, "%s may not require %q", layer[1], name)
    end
  end
end

local function check(path, layer, kind)
  local file <close> = assert(io.open(path))
  if kind == "lua" then return check_requires(path, layer, file:read("a")) end
  local n = 0
  for text in file:lines() do
    n = n + 1
    check_include(path, n, layer, text)
  end
end

local checked = 0
for _, path in ipairs(arg) do
  local layer, kind = layer_of(path), path:match("%.lua$") and "lua" or "c"
  if layer and layer[kind] then
    checked = checked + 1
    check(path, layer, kind)
  elseif not layer or (layer.free ~= true and layer.free ~= kind) then
    report(path, 1, "belongs to no layer; the table in host/tools/lint_layers.lua has them")
  end
end
if checked == 0 then
  print("lint_layers.lua: no file of a known layer was given; run it from the root of the tree")
  found = 1
end
os.exit(found == 0)
