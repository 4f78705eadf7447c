-- lint_docs.lua FILE... - every file and folder of this tree that the documents name, and the
-- comments of C and Lua sources, is there.
--
-- A name is a word that ends like a source, or begins with one of our folders. It may leave out
-- folders in front: `slot.c` is any slot.c. NAME, PART and * in it stand for anything.

local ENDS = { c = true, def = true, h = true, lua = true, md = true, mjs = true, sh = true }
local FOLDERS = { bench = true, docs = true, host = true, lua = true, persistence = true,
  tests = true }
local READERS = { ["talk.c"] = true, ["scripts/tea/init.lua"] = true } -- what the reader makes

local function tree()
  local paths = {}
  local found = "find . -name .git -prune -o -path './build*' -prune -o -print"
  local pipe <close> = assert(io.popen(found))
  for path in pipe:lines() do paths[#paths + 1] = path:sub(2) end -- each begins with a slash
  return "\n" .. table.concat(paths, "\n") .. "\n"
end

local function is_name(word)
  return ENDS[word:match("[%w_*]%.(%l+)$")] or FOLDERS[word:match("^(%l+)/%w")]
end

local function is_there(all, name)
  local pattern = ("/" .. name):gsub("[%-.]", "%%%0"):gsub("%*", "[^/\n]*")
    :gsub("%f[%u]NAME%f[%U]", "[^/\n]*"):gsub("%f[%u]PART%f[%U]", "[^/\n]*")
  return all:find(pattern .. "\n") ~= nil
end

-- The text with nothing left but its comments and line ends; a document as it is.
local function prose(path)
  local file <close> = assert(io.open(path))
  local text = file:read("a")
  local kind = path:match("%.(%w+)$")
  if kind == "md" then return text end
  local parts, at = {}, 1
  local open = kind == "lua" and "%-%-[^\n]*" or "%f[%S]/%*.-%*/"
  for from, comment, to in text:gmatch("()(" .. open .. ")()") do
    parts[#parts + 1] = text:sub(at, from - 1):gsub("[^\n]", "")
    parts[#parts + 1] = comment
    at = to
  end
  return table.concat(parts)
end

local all = tree()
for _, path in ipairs(arg) do
  local number = 0
  for line in (prose(path) .. "\n"):gmatch("(.-)\n") do
    number = number + 1
    local text = line:gsub("%l+://%S*", ""):gsub("^%s*#include.*", ""):gsub("%.%.%.%S*", "")
    for word in text:gmatch("[%w_./*-]+") do
      local name = word:gsub("^%./", ""):gsub("[./]+$", "")
      if is_name(name) and not READERS[name] and not is_there(all, name) then
        print(("%s:%d: there is no %s"):format(path, number, name))
      end
    end
  end
end
