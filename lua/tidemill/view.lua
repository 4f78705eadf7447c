--- Read-only faces of tables: what a script may look at but not change.
---
--- A view reads through to the table behind it, so it shows the present values; nested tables are
--- views too. `pairs`, `ipairs`, `#` and table.concat work on a view.
local json = require "host.json"

local M = {}

local behind = setmetatable({}, { __mode = "k" }) ---@type table<table, table>
local unwatched = setmetatable({}, { __mode = "k" }) ---@type table<table, table>

local readonly

local function wrapped(value, refusal)
  if type(value) == "table" then return readonly(value, refusal) end
  return value
end

---@param t table
---@param refusal string what a write is answered with; %s is the key
---@return table
function readonly(t, refusal)
  if behind[t] then return t end
  local face = {}
  behind[face] = t
  return setmetatable(face, {
    __metatable = false,
    __index = function(_, key) return wrapped(t[key], refusal) end,
    __newindex = function(_, key) error(refusal:format(tostring(key)), 2) end,
    __len = function() return #t end,
    __pairs = function()
      return function(_, key)
        local next_key, value = next(t, key)
        return next_key, wrapped(value, refusal)
      end, face, nil
    end,
  })
end
M.readonly = readonly

---A face that notes which names are read and written.
---@param face table what is behind it, a view or not
---@param reads tidemill.Reads
---@return table
function M.watched(face, reads)
  local watched = {}
  behind[watched], unwatched[watched] = M.real(face), face
  return setmetatable(watched, {
    __metatable = false,
    __index = function(_, key)
      reads.names[key] = true
      return face[key]
    end,
    __newindex = function(_, key, value)
      reads.writes[key] = true
      face[key] = value
    end,
    __len = function()
      reads.all = true
      return #face
    end,
    __pairs = function(self)
      reads.all = true
      return function(_, key) return M.next(face, key) end, self, nil
    end,
  })
end

---The table behind a view; anything else stays itself.
---@param value any
---@return any
function M.real(value)
  return type(value) == "table" and behind[value] or value
end

--- A table whose parts are to be looked through: no object.
local function is_plain(value)
  return type(value) == "table" and (getmetatable(value) == nil or json.is_array(value))
end

local function opened(value, reads, made)
  if unwatched[value] then
    reads.all = true
    return unwatched[value]
  end
  if not is_plain(value) then return value end
  if made[value] then return made[value] end
  local copied = json.is_array(value) and json.array {} or {}
  made[value] = copied
  for key, part in next, value do copied[key] = opened(part, reads, made) end
  return copied
end

---What leaves the sight of a step that is watched: what the watched faces in it show, all of whose
---names count as read.
---@param value any
---@param reads tidemill.Reads? nil: nobody watches
---@return any
function M.opened(value, reads)
  if not reads or value == nil then return value end
  return opened(value, reads, {})
end

---A table whose own fields cannot be changed; what they hold is not touched.
---@param t table
---@param refusal string
---@param call function? makes it callable
---@return table
function M.lock(t, refusal, call)
  local face = {}
  return setmetatable(face, {
    __metatable = false,
    __index = t,
    __newindex = function(_, key) error(refusal:format(tostring(key)), 2) end,
    __pairs = function()
      return function(_, key) return next(t, key) end, face, nil
    end,
    __call = call and function(_, ...)
      local made = call(...) -- no tail call: errors name lines
      return made
    end,
  })
end

---`next` that sees what a view shows.
---@param t table
---@param key any
---@return any key
---@return any value
function M.next(t, key)
  local real = type(t) == "table" and behind[t]
  if not real then return next(t, key) end
  local step = pairs(t)
  return step(t, key)
end

---A copy that belongs to the caller. The table must be a tree, as decoded JSON is.
---@param t table
---@return table
function M.copy(t)
  local copied = {}
  for key, value in next, t do
    copied[key] = type(value) == "table" and M.copy(value) or value
  end
  return json.is_array(t) and json.array(copied) or copied
end

return M
