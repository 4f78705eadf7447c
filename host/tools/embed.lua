-- embed.lua OUT ROOT...: writes OUT, a C table of every .lua file under the roots. A root's last
-- folder begins the module names: lua/tidemill/wait/parallel.lua is "tidemill.wait.parallel",
-- and an init.lua has its folder's name. Modules stay text, so line numbers and paths survive.
local out = table.remove(arg, 1)

local function quoted(s)
  return '"' .. s:gsub("[\\\"]", "\\%0") .. '"'
end

local function files(root)
  local find = assert(io.popen("find '" .. root .. "' -name '*.lua' -type f | LC_ALL=C sort"))
  local names = {}
  for path in find:lines() do names[#names + 1] = path end
  assert(find:close(), "find failed")
  return names
end

local function module_name(root, path)
  local base = root:match("([^/]+)/*$")
  local rest = path:sub(#root + 1):gsub("^/+", ""):gsub("%.lua$", "")
  return ((base .. "/" .. rest):gsub("/init$", ""):gsub("/", "."))
end

local function write_bytes(o, name, text)
  o:write("static const char ", name, "[] = {")
  for i = 1, #text do
    if i % 24 == 1 then o:write("\n") end
    local b = text:byte(i)
    o:write(b < 128 and b or ("'\\x%02x'"):format(b), ",") -- char may be signed
  end
  o:write("0};\n")
end

local o = assert(io.open(out, "wb"))
o:write('#include "bind/embedded.h"\n\n')
local rows = {}
for _, root in ipairs(arg) do
  for _, path in ipairs(files(root)) do
    local f <close> = assert(io.open(path, "rb"))
    local text = f:read("a")
    local name = "file" .. #rows + 1
    write_bytes(o, name, text)
    rows[#rows + 1] = ("  {%s, %s, %s, %d},\n"):format(quoted(module_name(root, path)),
      quoted("@" .. path), name, #text)
  end
end
o:write("const struct tm__embedded tm__embedded[] = {\n", table.concat(rows),
  "  {0, 0, 0, 0},\n};\n")
assert(o:close())
