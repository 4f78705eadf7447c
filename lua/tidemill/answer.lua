--- One function per input type: a raw answer becomes a value, or is refused by a rule, with a
--- reason for the person who answers. Knows nothing about steps or conversations.
local template = require "tidemill.template"
local text = require "host.text"

local M = {}

---@class tidemill.Refusal
---@field rule string required, type, min_length, max_length, pattern, min, max, option, validate
---@field reason string

local function refuse(rule, reason, ...)
  return nil, { rule = rule, reason = select("#", ...) > 0 and reason:format(...) or reason }
end
M.refuse = refuse

local SHORT_BYTES, OPTION_BYTES = 1000, 4000 -- longer than a number, a date, …; than an option

local function trimmed(raw)
  return type(raw) == "string" and #raw <= SHORT_BYTES and text.trim(raw) or nil
end

local function characters(n)
  return n == 1 and "1 character" or n .. " characters"
end

local function check_length(input, value)
  local length = (input.min_length or input.max_length) and text.length(value)
  if input.min_length and length < input.min_length then
    return refuse("min_length", "The answer is too short: it needs at least %s, this has %d.",
      characters(input.min_length), length)
  end
  if input.max_length and length > input.max_length then
    return refuse("max_length", "The answer is too long: it may have at most %s, this has %d.",
      characters(input.max_length), length)
  end
  if input.pattern then
    local matches, err = text.match(value, input.pattern)
    if err then return refuse("pattern", "The answer is too complicated to be checked.") end
    if not matches then return refuse("pattern", "The answer does not have the expected form.") end
  end
  return value
end

function M.text(input, raw)
  if type(raw) ~= "string" then return refuse("type", "Please answer with text.") end
  return check_length(input, raw)
end

local function check_bounds(input, value)
  if input.min and value < input.min then
    return refuse("min", "The answer must be at least %s.", template.display(input.min))
  end
  if input.max and value > input.max then
    return refuse("max", "The answer must be at most %s.", template.display(input.max))
  end
  return value
end

--- By what follows its first digits: nothing here looks at a text of digits again and again.
local function is_decimal(s)
  local rest = s:match "^[+-]?%d+(.*)$"
  if not rest then return s:find "^[+-]?%.%d+$" end
  return rest:find "^%.?%d*$" or rest:find "^%.?%d*[eE][+-]?%d+$"
end

local function to_number(raw)
  if type(raw) == "number" then return raw end
  local s = trimmed(raw)
  if not s or not is_decimal(s) then return nil end
  local value = tonumber((s:gsub("^%+", "")))
  return value and math.abs(value) < math.huge and value or nil
end

function M.number(input, raw)
  local value = to_number(raw)
  if not value then return refuse("type", "Please answer with a number, such as 12 or 3.5.") end
  return check_bounds(input, value)
end

function M.integer(input, raw)
  local value = to_number(raw)
  value = value and math.tointeger(value)
  if not value then return refuse("type", "Please answer with a whole number, such as 12.") end
  return check_bounds(input, value)
end

local WORDS = {
  ["true"] = true, yes = true, y = true, on = true, ["1"] = true,
  ["false"] = false, no = false, n = false, off = false, ["0"] = false,
}

function M.boolean(_, raw)
  if type(raw) == "boolean" then return raw end
  local s = trimmed(raw)
  local value
  if s then value = WORDS[text.lower(s)] end
  if value == nil then return refuse("type", "Please answer with yes or no.") end
  return value
end

local MONTH_DAYS = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }

---@param s string
---@return boolean
function M.is_date(s)
  local year, month, day = s:match("^(%d%d%d%d)%-(%d%d)%-(%d%d)$")
  if not year then return false end
  year, month, day = tonumber(year), tonumber(month), tonumber(day)
  local leap = year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0)
  local days = MONTH_DAYS[month]
  if month == 2 and leap then days = 29 end
  return days ~= nil and day >= 1 and day <= days
end

function M.date(input, raw)
  local s = trimmed(raw)
  if not s or not M.is_date(s) then
    return refuse("type", "Please answer with a date as year-month-day, such as 2025-03-31.")
  end
  return check_bounds(input, s)
end

function M.email(_, raw)
  local s = trimmed(raw)
  local whole = s and #s <= 254 and s:match("^[^%s@<>,;:\"]+@[%w%-.\128-\255]+%.[%w%-\128-\255]+$")
  if not whole or s:find("%.%.") or s:find("@[.-]") or s:find("%.@") or s:find("^%.") then
    return refuse("type", "Please answer with an e-mail address, such as ada@example.org.")
  end
  return s
end

function M.phone(_, raw)
  local s = trimmed(raw)
  local compact = s and s:find("^%+?[%d \t%-%.()/]+$") and s:gsub("[^%d+]", "")
  local digits = compact and #compact:gsub("%+", "") or 0
  if digits < 7 or digits > 15 then
    return refuse("type", "Please answer with a telephone number, such as +49 30 1234567.")
  end
  return compact
end

local function by_value(options, s)
  for _, option in ipairs(options) do
    if template.display(option.value) == s then return option end
  end
end

local function by_label(options, lower)
  for _, option in ipairs(options) do
    if option.lower == lower then return option end
  end
end

local function by_beginning(options, lower)
  local found = {}
  for _, option in ipairs(options) do
    if option.lower:sub(1, #lower) == lower then found[#found + 1] = option end
  end
  return found
end

local function labels(options)
  local parts = {}
  for i, option in ipairs(options) do parts[i] = ("'%s'"):format(option.label) end
  return table.concat(parts, ", ")
end

--- By value, label, number or unambiguous beginning, in that order; else all that begin so.
local function find_option(options, s)
  if #s > OPTION_BYTES then return by_value(options, s), {} end
  local lower = text.lower(s)
  local option = by_value(options, s) or by_label(options, lower)
    or s:find("^%d+$") and options[math.tointeger(tonumber(s))]
  if option then return option end
  local begun = by_beginning(options, lower)
  return #begun == 1 and begun[1] or nil, begun
end

--- An option, or custom text. The third result is the outcome where it is not the value.
function M.choice(input, raw)
  local s = type(raw) == "string" and text.trim(raw)
    or (type(raw) == "number" or type(raw) == "boolean") and template.display(raw)
  if not s then return refuse("type", "Please choose one of: %s.", labels(input.options)) end
  local option, begun = find_option(input.options, s)
  if option then return option.value end
  if input.allow_custom_response then
    local value, refusal = check_length(input, s)
    return value, refusal, "custom"
  end
  if #begun > 1 then
    return refuse("option", "The answer could mean %s; please write more of it.", labels(begun))
  end
  return refuse("option", "Please choose one of: %s.", labels(input.options))
end

return M
