-- lint_layers.lua FILE...: fails when a file includes or requires what its layer may not know. The
-- tables below are the architecture. Run from the root of the tree; the paths are relative to it.

local STORE, API = "persistence/store.h", "host/include/tidemill.h"
local CODEC, KEYS = "persistence/codec.h", "persistence/keyring.h"
local ACCESS, STORAGE = "host/storage/access.h", "host/storage/storage.h"
local REPLY_JOB = "host/storage/reply_job.h"
local JOURNAL, BUNDLE = "host/journal/journal.h", "host/journal/bundle.h"

-- Most specific first. `c`: what a file may include, as prefixes of paths in the tree. `lua`: what
-- it may require, as names; one that ends in a dot stands for all below it. `own`: or a module in
-- the same system's folder.
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
  { "host/tools/" },
  { "host/main", c = { API, "host/main" } },
  { "host/", c = { API, "host/core/", "host/loop/", "host/net/", "host/config/", "host/api/",
                   "host/bind/", STORAGE, JOURNAL, BUNDLE, "host/journal/reader.h",
                   "host/keeping/copy.h", "host/keeping/janitor.h", "host/keeping/reseal.h",
                   "host/keeping/session.h", "host/keeping/versions.h",
                   "host/outbox/deliver.h", "host/outbox/event_id.h",
                   "host/outbox/list.h", STORE, CODEC, KEYS,
                   "host/*.h" } },
  { "persistence/", c = { API, "host/core/", "persistence/" } },
  { "lua/tidemill/", lua = { "tidemill", "tidemill.", "host." } },
  { "lua/meta/", lua = {} },
  { "scripts/", lua = { "tidemill" }, own = true },
}

-- Wherever nothing may wait for a socket or an event loop.
local BELOW = { "host/core/", "host/config/", "host/keeping/copy", "persistence/" }

-- Headers of libraries that belong to one part, and what the parts below must not know at all.
local libraries = {
  { "^lua[%w]*%.h$", only = "host/bind/" },
  { "^lualib%.h$", only = "host/bind/" },
  { "^microhttpd%.h$", only = "host/net/" },
  { "^curl/", only = "host/net/" },
  { "^sqlite3%.h$", only = "persistence/" },
  { "^yaml%.h$", only = "host/config/" },
  { "^zstd%.h$", only = "persistence/" },
  { "^uv%.h$", never = BELOW },
  { "^pthread%.h$", never = { "host/core/", "host/config/", "host/keeping/copy" } },
  { "^threads%.h$", never = { "host/core/", "host/config/", "host/keeping/copy" } },
  { "^hiredis/", only = "persistence/" },
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
    if starts(path, layer[1]) then return layer end
  end
end

local function exists(path)
  local file = io.open(path)
  if file then file:close() end
  return file ~= nil
end

-- The file that `#include "name"` finds: beside the includer, then where -I looks.
local function resolve(path, name)
  for _, folder in ipairs { path:match("^(.*/)") or "", "", "host/", "host/include/" } do
    if exists(folder .. name) then return folder .. name end
  end
  return name
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

local function check_include(path, n, layer, text)
  local name = text:match('^%s*#%s*include%s+"([^"]+)"')
  if name and name:find("..", 1, true) then
    report(path, n, "write %q from host/ or from the root", name)
  end
  local target = name and resolve(path, name)
  if target and not allowed(layer.c, target) then
    report(path, n, "%s may not include %q", layer[1], target)
  end
  local library = text:match("^%s*#%s*include%s+<([^>]+)>")
  for _, rule in ipairs(library and libraries or {}) do
    local refused = rule.only and rule.only ~= layer[1]
    for _, one in ipairs(rule.never or {}) do refused = refused or one == layer[1] end
    if refused and path ~= rule.but and library:match(rule[1]) then
      report(path, n, "%s may not use <%s>", layer[1], library)
    end
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

-- A call with a computed name, or the function handed on; but not the word in a text.
local function is_use(before, rest)
  return rest:find("^%s*%(") or (before:find("[%(,=]%s*$") and rest:find("^%s*[,%)]"))
    or (before:find("=%s*$") and rest:find("^%s*$"))
end

-- Comments and the insides of strings hide no require; what follows a require is looked at raw.
local function check_require(path, n, layer, text)
  local at = 1
  while true do
    local from, to = text:find("%f[%w_]require%f[^%w_]", at)
    if not from then return end
    at = to + 1
    local before, rest = text:sub(1, from - 1), text:sub(to + 1)
    local name = rest:match("^%s*%(?%s*[\"']([^\"']*)[\"']")
    local quoted = select(2, before:gsub("[\"']", "")) % 2 == 1
    if quoted or before:find("%-%-") then
      name = nil
    elseif not name and layer.own and is_use(before, rest) then
      report(path, n, "%s may only require a literal name", layer[1])
    end
    if name and not may_require(path, layer, name) then
      report(path, n, "%s may not require %q", layer[1], name)
    end
  end
end

local checked = 0
for _, path in ipairs(arg) do
  local layer = layer_of(path)
  local check = layer and (path:match("%.lua$") and layer.lua and check_require
    or path:match("%.[ch]$") and layer.c and check_include)
  if check then
    checked = checked + 1
    local n = 0
    for text in io.lines(path) do
      n = n + 1
      check(path, n, layer, text)
    end
  end
end
if checked == 0 then
  print("lint_layers.lua: no file of a known layer was given; run it from the root of the tree")
  found = 1
end
os.exit(found == 0)
