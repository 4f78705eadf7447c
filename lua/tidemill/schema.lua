--- Checks tables of a script against the tables of known fields in `tidemill.fields`: types,
--- unknown names with the nearest known one, and what is known but not supported yet.
local fault = require "tidemill.fault"
local json = require "host.json"
local text = require "host.text"

local M = {}

---@class tidemill.Field
---@field type string
---@field required boolean?
---@field unsupported boolean? known, refused
---@field host string? the host's business: the key of agent_config.yaml that says it
---@field secret boolean? of those: no script should know it
---@field only any? supported with this value alone
---@field among string[]? the values it may have
---@field later table<string, true>? values that are known but not supported yet
---@field kinds table<string, true>? step types or input types it belongs to
---@field min number?
---@field max number?

local UNITS = { ms = 1, s = 1000, m = 60000, h = 3600000, d = 86400000 }
local LONGEST_MS = 100 * 366 * 86400000

---Milliseconds of a duration: seconds, or "30m"; nil when it is none.
---@param value any
---@return integer?
function M.duration(value)
  local ms
  if type(value) == "number" then
    ms = value * 1000
  elseif type(value) == "string" then
    local amount, unit = value:match("^(%d+%.?%d*)(%a*)$")
    unit = UNITS[unit == "" and "s" or unit]
    ms = unit and tonumber(amount) * unit
  end
  if not ms or ms ~= ms or ms < 0 or ms > LONGEST_MS then return nil end
  return math.floor(ms + 0.5)
end

--- A list is a table with the keys 1…n only.
local function is_list(value)
  if type(value) ~= "table" or getmetatable(value) ~= nil and not json.is_array(value) then
    return false
  end
  local count = 0
  for _ in pairs(value) do count = count + 1 end
  return count == #value
end
M.is_list = is_list

---@param value any
---@return boolean finite
function M.is_number(value)
  return type(value) == "number" and value == value and math.abs(value) ~= math.huge
end

local types = {}
types.option = { "a text, a finite number or true/false", function(v)
  return type(v) == "boolean" or types.string[2](v) or types.number[2](v)
end }
types.hints = { "a table of texts", function(v)
  if type(v) ~= "table" then return false end
  for _, hint in pairs(v) do
    if not types.string[2](hint) then return false end
  end
  return true
end }
types.any = { "a value", function(v) return v ~= nil end }
types.string = { "a text", function(v) return type(v) == "string" and text.valid(v) end }
types.boolean = { "true or false", function(v) return type(v) == "boolean" end }
types.number = { "a finite number", M.is_number }
types.integer = { "an integer", function(v) return math.type(v) == "integer" end }
types.duration = { "a duration (seconds, or a text such as \"30m\")",
  function(v) return M.duration(v) ~= nil end }
types.table = { "a table", function(v) return type(v) == "table" end }
types.list = { "a list", is_list }
types["function"] = { "a function", function(v) return type(v) == "function" end }
types.plain = { "a table of plain values",
  function(v) return type(v) == "table" and json.check(v) == true end }
types.condition = { "a name or a function",
  function(v) return type(v) == "function" or type(v) == "string" end }
types.moment = { "a number, a duration or a function",
  function(v) return type(v) == "function" or M.is_number(v) or M.duration(v) ~= nil end }
types.join = { "\"all\", \"any\" or how many branches",
  function(v) return v == "all" or v == "any" or math.type(v) == "integer" and v > 0 end }
types.result = { "a name or a list of names",
  function(v) return types.string[2](v) or types.names[2](v) end }
types.names = { "a list of texts", function(v)
  if not is_list(v) then return false end
  for _, item in ipairs(v) do if not types.string[2](item) then return false end end
  return true
end }

---@param t table<string, any>
---@return string[]
function M.sorted_keys(t)
  local keys = {}
  for key in pairs(t) do
    if type(key) == "string" then keys[#keys + 1] = key end
  end
  table.sort(keys)
  return keys
end

---The nearest of some names, when one is near enough to be meant.
---@param name string
---@param known table<string, any> its keys are the names
---@return string?
function M.nearest(name, known)
  local best, best_distance = nil, math.max(2, #name // 3) + 1
  for _, candidate in ipairs(M.sorted_keys(known)) do
    local distance = text.distance(name, candidate)
    if distance < best_distance then best, best_distance = candidate, distance end
  end
  return best
end

---" (did you mean 'x'?)", or nothing.
---@param name string
---@param known table<string, any>
---@return string
function M.hint(name, known)
  local nearest = M.nearest(name, known)
  return nearest and ("; did you mean '%s'?"):format(nearest) or ""
end

local function shown(value)
  if type(value) == "string" then return "'" .. fault.printable(value, 100) .. "'" end
  if type(value) == "table" or type(value) == "function" then return "a " .. type(value) end
  return tostring(value)
end

local function check_range(field, value)
  if field.min and value < field.min then return ("must be at least %s"):format(field.min) end
  if field.max and value > field.max then return ("must be at most %s"):format(field.max) end
end

local function check_among(field, value)
  for _, allowed in ipairs(field.among) do
    if value == allowed then return end
  end
  local known = {}
  for _, allowed in ipairs(field.among) do known[allowed] = true end
  return ("is %s, must be one of %s%s"):format(shown(value), table.concat(field.among, ", "),
    M.hint(value, known))
end

local OF_HOST = "is the host's, whose store all systems are in: set %s in agent_config.yaml, and "
  .. "leave it out here"
local SECRET = "does not belong into a script, which the store keeps: set %s in agent_config.yaml, "
  .. "or workflow_persistence.general.tenant_keys for a key per tenant, and "
  .. "leave it out here"

--- nil, or what is wrong and by which rule.
local function check_value(field, value, kind)
  if field.host then return (field.secret and SECRET or OF_HOST):format(field.host), "fields" end
  if field.unsupported then return "is not supported yet", "unsupported" end
  if field.kinds and kind and not field.kinds[kind] then
    return ("does not belong to '%s', only to %s"):format(kind,
      table.concat(M.sorted_keys(field.kinds), ", ")), "fields"
  end
  local expected = types[field.type]
  if field.type == "plain" and type(value) == "table" then
    local fine, err = json.check(value)
    if not fine then return "cannot be kept: " .. err.message, "fields" end
  end
  if not expected[2](value) then
    return ("must be %s, not %s"):format(expected[1], shown(value)), "fields"
  end
  if field.only ~= nil and value ~= field.only then
    return ("= %s is not supported yet; only %s is"):format(shown(value), tostring(field.only)),
      "unsupported"
  end
  if field.later and field.later[value] then
    return ("= '%s' is not supported yet"):format(value), "unsupported"
  end
  local problem = field.among and check_among(field, value) or check_range(field, value)
  return problem, "fields"
end

---@param fields table<string, tidemill.Field>
---@param t table
---@param where string what `t` is, for the messages: "settings"
---@param report fun(text: string, rule: string)
---@param kind string? the step type or input type
---@return boolean ok nothing was reported
function M.check(fields, t, where, report, kind)
  local ok = true
  local function fail(problem, rule)
    ok = false
    report(problem, rule)
  end
  if getmetatable(t) ~= nil then
    fail(("%s: must be a plain table, without a metatable"):format(where), "fields")
    return false
  end
  for key in pairs(t) do
    if type(key) ~= "string" then
      fail(("%s: a value without a name (key %s)"):format(where, tostring(key)), "fields")
    end
  end
  for _, key in ipairs(M.sorted_keys(t)) do
    local field = fields[key]
    if not field then
      fail(("%s: unknown field '%s'%s"):format(where, key, M.hint(key, fields)), "fields")
    else
      local problem, rule = check_value(field, t[key], kind)
      if problem then fail(("%s: '%s' %s"):format(where, key, problem), rule) end
    end
  end
  for _, key in ipairs(M.sorted_keys(fields)) do
    local field = fields[key]
    local needed = field.required and (not field.kinds or kind and field.kinds[kind])
    if needed and t[key] == nil then
      fail(("%s: '%s' is missing"):format(where, key), "fields")
    end
  end
  return ok
end

return M
