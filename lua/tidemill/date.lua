--- `os` as scripts have it: clock, date, difftime and time, always in UTC. Inside a step the time
--- is that of ctx.now, so a step that runs again after a crash asks the same again.
local clock = require "host.clock"
local fault = require "tidemill.fault"
local task = require "tidemill.task"

local M = {}

local DAY = 86400
local EARLIEST, LATEST = -62135596800, 253402300799 -- the years 1 to 9999
local FORMAT_MOST_BYTES = 1000

local DAYS = { "Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday" }
local MONTHS = { "January", "February", "March", "April", "May", "June", "July", "August",
  "September", "October", "November", "December" }

local function now_ms()
  return task.now() or clock.now()
end

--- Days since 1970 of a date of the Gregorian calendar; a month beyond 12 is one of a later year.
local function days_of(year, month, day)
  year, month = year + (month - 1) // 12, (month - 1) % 12 + 1
  if month <= 2 then year, month = year - 1, month + 12 end
  local era = year // 400
  local of_era = year - era * 400
  return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + (153 * (month - 3) + 2) // 5
    + day - 1 - 719468
end

local function fields_of(seconds)
  local days, rest = seconds // DAY, seconds % DAY
  local year = 1972 + days // 365 -- at least
  while days_of(year, 1, 1) > days do year = year - 1 end
  local month = 12
  while days_of(year, month, 1) > days do month = month - 1 end
  return { year = year, month = month, day = days - days_of(year, month, 1) + 1,
    hour = rest // 3600, min = rest // 60 % 60, sec = rest % 60, wday = (days + 4) % 7 + 1,
    yday = days - days_of(year, 1, 1) + 1, isdst = false }
end

--- The year and the week that ISO 8601 counts a day to.
local function iso_week(at)
  local thursday = at.yday - (at.wday + 5) % 7 + 3
  local year = at.year
  if thursday < 1 then
    year = year - 1
    thursday = thursday + days_of(year + 1, 1, 1) - days_of(year, 1, 1)
  elseif thursday > days_of(year + 1, 1, 1) - days_of(year, 1, 1) then
    thursday, year = thursday - (days_of(year + 1, 1, 1) - days_of(year, 1, 1)), year + 1
  end
  return year, (thursday - 1) // 7 + 1
end

local function two(n) return ("%02d"):format(n) end
local function hour12(at) return (at.hour + 11) % 12 + 1 end

local WRITERS = {
  a = function(at) return DAYS[at.wday]:sub(1, 3) end,
  A = function(at) return DAYS[at.wday] end,
  b = function(at) return MONTHS[at.month]:sub(1, 3) end,
  B = function(at) return MONTHS[at.month] end,
  c = "%a %b %e %H:%M:%S %Y",
  C = function(at) return two(at.year // 100) end,
  d = function(at) return two(at.day) end,
  D = "%m/%d/%y",
  e = function(at) return ("%2d"):format(at.day) end,
  F = "%Y-%m-%d",
  g = function(at) return two(iso_week(at) % 100) end,
  G = function(at) return ("%d"):format((iso_week(at))) end,
  h = "%b",
  H = function(at) return two(at.hour) end,
  I = function(at) return two(hour12(at)) end,
  j = function(at) return ("%03d"):format(at.yday) end,
  m = function(at) return two(at.month) end,
  M = function(at) return two(at.min) end,
  n = function() return "\n" end,
  p = function(at) return at.hour < 12 and "AM" or "PM" end,
  r = "%I:%M:%S %p",
  R = "%H:%M",
  S = function(at) return two(at.sec) end,
  t = function() return "\t" end,
  T = "%H:%M:%S",
  u = function(at) return ("%d"):format((at.wday + 5) % 7 + 1) end,
  U = function(at) return two((at.yday + 7 - at.wday) // 7) end,
  V = function(at) return two(select(2, iso_week(at))) end,
  w = function(at) return ("%d"):format(at.wday - 1) end,
  W = function(at) return two((at.yday + 6 - (at.wday + 5) % 7) // 7) end,
  x = "%m/%d/%y",
  X = "%H:%M:%S",
  y = function(at) return two(at.year % 100) end,
  Y = function(at) return ("%d"):format(at.year) end,
  z = function() return "+0000" end,
  Z = function() return "UTC" end,
  ["%"] = function() return "%" end,
}

local function write(format, at)
  return (format:gsub("%%(.?)", function(letter)
    local writer = WRITERS[letter]
    if type(writer) == "string" then return write(writer, at) end
    if writer then return writer(at) end
    fault.misuse(("os.date: '%%%s' is no conversion; there are those of C's strftime, without E "
      .. "and O"):format(fault.printable(letter)))
  end))
end

local function checked_time(name, seconds)
  local whole = math.tointeger(seconds)
  if whole and whole >= EARLIEST and whole <= LATEST then return whole end
  fault.misuse(("os.%s: the time must be a whole number of seconds, in the years 1 to 9999")
    :format(name))
end

---@param format string?
---@param seconds integer?
---@return string|osdate
function M.date(format, seconds)
  format = format == nil and "%c" or format
  if type(format) ~= "string" or #format > FORMAT_MOST_BYTES then
    fault.misuse(("os.date: the format must be a text of at most %d bytes")
      :format(FORMAT_MOST_BYTES))
  end
  local at = fields_of(checked_time("date", seconds == nil and now_ms() // 1000 or seconds))
  format = format:gsub("^!", "")
  if format:find("^%*t") then return at end
  return write(format, at)
end

local function field(t, name, default)
  local value = t[name]
  if value == nil then value = default end
  local whole = math.tointeger(type(value) == "string" and tonumber(value) or value)
  if whole and whole > -1000000000 and whole < 1000000000 then return whole end
  fault.misuse(("os.time: the field '%s' must be a whole number"):format(name))
end

---@param t table?
---@return integer
function M.time(t)
  if t == nil then return now_ms() // 1000 end
  if type(t) ~= "table" then fault.misuse("os.time: a table expected, not a " .. type(t)) end
  local days = days_of(field(t, "year"), field(t, "month"), field(t, "day"))
  return checked_time("time", days * DAY + field(t, "hour", 12) * 3600 + field(t, "min", 0) * 60
    + field(t, "sec", 0))
end

---@return number seconds; stands still within a step
function M.clock()
  return now_ms() / 1000
end

---@return number seconds
function M.difftime(later, earlier)
  return (later - (earlier or 0)) * 1.0
end

return M
