-- errors.lua docs|check|provoked FILE - the catalogue of error codes; run it in the root.
--
-- `docs` writes it to FILE from host/core/errors.def and the sources; `check` fails when a code of
-- the sources is not in the list, when a listed one is nowhere raised, and when FILE is stale;
-- `provoked` fails when FILE, which the tests have written, lacks a listed code or has another.

local LIST = "host/core/errors.def"
local NAME = "[%l_][%l%d_]*%.[%l_][%l%d_]*"

local function read(path)
  local file <close> = assert(io.open(path, "rb"))
  return file:read("a")
end

---- the list ----

-- The C of the list, with its comment gone and its adjacent strings joined, is Lua as well.
local function read_list()
  local list = { areas = {}, about = {}, errors = {}, rules = {}, order = {}, rule_order = {} }
  local area
  local scope = {
    AREA = function(name, about)
      area = name
      list.areas[#list.areas + 1], list.about[name] = name, about
    end,
    ERROR = function(code, http, meaning, remedy)
      list.order[#list.order + 1] = code
      assert(code:match("^([%l%d_]+)%.") == area, code .. " stands below another area")
      assert(not list.errors[code], code .. " is there twice")
      list.errors[code] = { area = area, http = http, meaning = meaning, remedy = remedy }
    end,
    RULE = function(name, meaning, remedy)
      list.rule_order[#list.rule_order + 1] = name
      list.rules[name] = { meaning = meaning, remedy = remedy }
    end,
  }
  local text = read(LIST):gsub("/%*.-%*/", ""):gsub('"%s*\n%s*"', "")
  assert(load(text, "@" .. LIST, "t", scope))()
  return list
end

local function is_sorted(names)
  for i = 2, #names do
    if names[i - 1] >= names[i] then return false, names[i] end
  end
  return true
end

---- the sources ----

local function sources()
  local paths = {}
  local pipe <close> = assert(io.popen("LC_ALL=C find host persistence lua/tidemill -name '*.lua' "
    .. "-o -name '*.[ch]' | grep -v '^host/tools/' | LC_ALL=C sort"))
  for path in pipe:lines() do paths[#paths + 1] = path end
  return paths
end

-- Less comments, and less what looks like a code and is none: settings, modules, comparisons.
local function code_of(path)
  local text = read(path)
  if path:find("%.[ch]$") then
    return (text:gsub("/%*.-%*/", ""):gsub("#include[^\n]*", "")
      :gsub("tm__config_%w+%([^\"\n]*\"[^\"\n]*\"", ""):gsub("strcmp%([^\n]*", ""))
  end
  return (text:gsub("%-%-[^\n]*", ""):gsub("require%s*%(?%s*\"[^\"]*\"", "")
    :gsub("[=~]=%s*\"[^\"]*\"", ""))
end

local RAISES = {
  "tm__fail%s*%([^\"]*\"(" .. NAME .. ")\"", "fault%.new%s*%(%s*\"(" .. NAME .. ")\"",
  "fault%.stop%s*%(%s*\"(" .. NAME .. ")\"", "code%s*=%s*\"(" .. NAME .. ")\"",
}

-- The keys of the configuration, which may stand in an area of the same name.
local function settings()
  local keys = {}
  for key in read("host/config/keys.def"):gmatch("\"(" .. NAME .. ")\"") do keys[key] = true end
  return keys
end

-- A code is what is raised as one, or any literal in one of the areas of the list.
local function raised_in(path, list, keys, found)
  local text = code_of(path)
  local function add(code)
    found[code] = found[code] or {}
    local files = found[code]
    if files[#files] ~= path then files[#files + 1] = path end
  end
  for _, pattern in ipairs(RAISES) do
    for code in text:gmatch(pattern) do add(code) end
  end
  for code in text:gmatch("\"(" .. NAME .. ")\"") do
    if list.about[code:match("^[^.]+")] and not keys[code] then add(code) end
  end
  for code in text:gmatch("%[(" .. NAME .. ")%]\\n\"") do add(code) end
end

local function raised(list)
  local found, keys = {}, settings()
  for _, path in ipairs(sources()) do raised_in(path, list, keys, found) end
  for _, files in pairs(found) do table.sort(files) end
  return found
end

---- the document ----

local HEAD = [[
# Error codes

Made by `make docs` from `host/core/errors.def` and the sources; do not edit it.

Every error has a stable code, for programs, and a message, for people, which says what happened,
where, and what to do. The code stands in `code` of `tm_error`, of the problem+json of an HTTP
answer (whose `type` is `urn:tidemill:error:` and the code) and of the `error` of a step or a
conversation, and in brackets at the end of what the command line prints. *HTTP* is the status of
the answer that carries the code; "–" where it is no answer to a request: the code then stands in
the record of a step, in a log or in the output of a command.

A script may raise codes of its own, `error { code = "stock.empty", message = "…" }`: letters,
digits, `_`, `.` and `-`, at most 47. They are passed on as they are. A code that is none becomes
`script.error`.
]]

local function row(...)
  return "| " .. table.concat({ ... }, " | ") .. " |\n"
end

local function escaped(text)
  return (text:gsub("|", "\\|"))
end

local function named_files(files)
  local names = {}
  for i, path in ipairs(files or {}) do names[i] = "`" .. path .. "`" end
  return table.concat(names, " ")
end

local function document(list, found)
  local parts = { HEAD }
  local function put(text) parts[#parts + 1] = text end
  for _, area in ipairs(list.areas) do
    put(("\n## %s\n%s.\n\n"):format(area, list.about[area]))
    put(row("code", "HTTP", "meaning", "remedy", "raised in") .. "|---|---|---|---|---|\n")
    for _, code in ipairs(list.order) do
      local e = list.errors[code]
      if e.area == area then
        put(row("`" .. code .. "`", e.http == 0 and "–" or tostring(e.http), escaped(e.meaning),
          escaped(e.remedy), named_files(found[code])))
      end
    end
  end
  put("\n## Rules of `tidemill check`\nA finding ends with its rule in brackets; a system that "
    .. "cannot be loaded at all is named by one of the codes above.\n\n")
  put(row("rule", "meaning", "remedy") .. "|---|---|---|\n")
  for _, name in ipairs(list.rule_order) do
    local rule = list.rules[name]
    put(row("`" .. name .. "`", escaped(rule.meaning), escaped(rule.remedy)))
  end
  return table.concat(parts)
end

---- the commands ----

local commands, complaints = {}, 0

local function complain(...)
  complaints = complaints + 1
  print(string.format(...))
end

function commands.docs(path)
  local list = read_list()
  local file <close> = assert(io.open(path, "wb"))
  assert(file:write(document(list, raised(list))))
end

local function check_order(names, what)
  local good, late = is_sorted(names)
  if not good then complain("%s: %s %s is not in the order of names", LIST, what, late) end
end

local function sorted_keys(t)
  local keys = {}
  for key in pairs(t) do keys[#keys + 1] = key end
  table.sort(keys)
  return keys
end

local function check_rules(list)
  local text = {}
  for _, path in ipairs(sources()) do text[#text + 1] = path:find("%.lua$") and read(path) end
  local all = table.concat(text, "\n")
  for _, name in ipairs(list.rule_order) do
    if not all:find('"' .. name .. '"', 1, true) then
      complain("%s: the rule %s is reported nowhere; remove it", LIST, name)
    end
  end
end

function commands.check(path)
  local list = read_list()
  local found = raised(list)
  check_order(list.areas, "the area")
  check_order(list.order, "the code")
  check_order(list.rule_order, "the rule")
  for _, code in ipairs(sorted_keys(found)) do
    if not list.errors[code] then
      complain("%s: the code %s is not listed in %s", found[code][1], code, LIST)
    end
  end
  for _, code in ipairs(list.order) do
    if #code > 47 then complain("%s: %s is longer than 47 bytes", LIST, code) end
    if not found[code] then complain("%s: %s is raised nowhere; remove it", LIST, code) end
  end
  check_rules(list)
  local file = io.open(path, "rb")
  local have = file and file:read("a")
  if file then file:close() end
  if have ~= document(list, found) then complain("%s is stale: run make docs", path) end
end

local function tests()
  local texts = {}
  local found = "find tests -name '*.lua' -o -name '*.[ch]' -o -name '*.mjs'"
  local pipe <close> = assert(io.popen(found))
  for path in pipe:lines() do texts[#texts + 1] = read(path) end
  return (table.concat(texts, "\n"):gsub("\\", ""))
end

-- A line of the tests' record is a code, or a rule in brackets.
function commands.provoked(path)
  local list, seen, asserted = read_list(), {}, tests()
  for line in io.lines(path) do seen[line] = true end
  local count = 0
  for _, code in ipairs(list.order) do
    if seen[code] then count = count + 1 else complain("no test provokes %s", code) end
    if not asserted:find(code, 1, true) then complain("no test looks for the code %s", code) end
  end
  for _, name in ipairs(list.rule_order) do
    if seen["[" .. name .. "]"] then count = count + 1
    else complain("no test provokes the rule [%s]", name) end
  end
  for _, line in ipairs(sorted_keys(seen)) do
    local rule = line:match("^%[(.*)%]$")
    local area = line:match("^([%l%d_]+)%.")
    local known = rule and (list.rules[rule] or list.errors[rule]) or list.errors[line]
    if not known and (rule or list.about[area]) then
      complain("a test provoked %s, which is not listed in %s", line, LIST)
    end
  end
  print(("%d of %d codes and rules were provoked"):format(count, #list.order + #list.rule_order))
end

local command = commands[arg[1]]
if not command or not arg[2] then
  io.stderr:write("usage: errors.lua docs|check|provoked FILE\n")
  os.exit(2)
end
command(arg[2])
os.exit(complaints == 0)
