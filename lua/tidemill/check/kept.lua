--- What a system's functions keep beside the conversation: variables that they write and do not
--- declare. All conversations of a Lua state share those, of all tenants unless they are isolated,
--- and they are lost with the state.
---
--- Only functions that the system has once it is loaded count: those in its tables, and what these
--- hold as upvalues; what only ran while it was loaded may write what it likes. Not seen: what is
--- kept within a table, and functions that are reached by a global or a metatable only.
local closure = require "host.closure"
local written = require "tidemill.check.written"

local M = {}

--- Sources together, in bytes: looking through more would take longer than a check may.
local MOST = 256 << 10

local TEXT = "a function of the system writes '%s', which outlives the turn: other conversations "
  .. "see it, of other tenants too unless those are isolated, and it is lost with the Lua state; "
  .. "keep it in ctx.state, or in a local of the function"

local function key_of(chunk, first, last)
  return ("%s:%d:%d"):format(chunk, first, last)
end

--- Functions by where they stand; those of the same lines are not told apart, so all of them count
--- as writing only if each does.
local function functions_by_place(sources)
  local by_place = {}
  for _, source in ipairs(sources) do
    for _, fn in ipairs(written.functions(source.text)) do
      local key = key_of(source.chunk, fn.first, fn.last)
      local same = by_place[key] or { writes = {}, silent = false }
      by_place[key] = same
      same.silent = same.silent or #fn.writes == 0
      table.move(fn.writes, 1, #fn.writes, #same.writes + 1, same.writes)
    end
  end
  return by_place
end

--- Calls `visit` with each script function that is reached from `value`.
local function each_function(value, is_script, visit)
  local seen, open = {}, { value }
  local function reach(found)
    local kind = type(found)
    if (kind ~= "table" and kind ~= "function") or seen[found] then return end
    seen[found] = true
    open[#open + 1] = found
  end
  while #open > 0 do
    local found = table.remove(open)
    if type(found) == "table" then
      for key, member in next, found do
        reach(key)
        reach(member)
      end
    else
      local chunk, first, last = closure.place(found)
      if chunk and is_script[chunk] then
        visit(key_of(chunk, first, last))
        local i, name, held = 1, closure.upvalue(found, 1)
        while name do
          if name ~= "_ENV" then reach(held) end
          i = i + 1
          name, held = closure.upvalue(found, i)
        end
      end
    end
  end
end

---@param system tidemill.System
---@param sources { text: string, chunk: string }[] its files, and the names of their chunks
---@param findings tidemill.Findings
function M.check(system, sources, findings)
  local size, is_script = 0, {}
  for _, source in ipairs(sources) do
    size, is_script[source.chunk] = size + #source.text, true
  end
  if size > MOST then return end
  local by_place, told = functions_by_place(sources), {}
  each_function(system, is_script, function(key)
    local fn = by_place[key]
    if not fn or fn.silent then return end
    local file = key:match "^@?(.*):%d+:%d+$"
    for _, write in ipairs(fn.writes) do
      local place = ("%s:%d:%s"):format(file, write.line, write.name)
      if not told[place] then
        told[place] = true
        findings:add({ file = file, line = write.line }, TEXT:format(write.name), "kept", "warning")
      end
    end
  end)
end

return M
