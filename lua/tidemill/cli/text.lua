--- Text for a terminal: cleaning, wrapping, tables, times. Knows nothing of what it shows.
---
--- Everything that is shown came from somebody, so `clean` takes the control characters out: a
--- stored answer cannot steer the terminal of whoever reads it. Nothing is ever cut off; what is
--- too wide goes on in the next line.
local columns_of = require "tidemill.cli.columns"

local M = {}

M.width = columns_of.width

local COLOURS = { bold = "\27[1m", dim = "\27[2m", red = "\27[31m", yellow = "\27[33m" }

---@param name "bold"|"dim"|"red"|"yellow"
---@param text string
---@param colour boolean
---@return string
function M.paint(name, text, colour)
  return colour and text ~= "" and COLOURS[name] .. text .. "\27[0m" or text
end

---Without control characters, those that turn the direction of writing included; line feeds stay,
---tabs become blanks.
---@param value any
---@return string
function M.clean(value)
  local text = type(value) == "string" and value or tostring(value)
  text = text:gsub("\r\n", "\n"):gsub("\t", "  "):gsub("[\0-\9\11-\31\127]", "?")
  text = text:gsub("\xC2[\x80-\x9F]", "?")
  return (text:gsub("\xE2\x80[\xAA-\xAE]", "?"):gsub("\xE2\x81[\xA6-\xA9]", "?"))
end

---@param text string
---@param columns integer
---@return string
function M.pad(text, columns)
  return text .. (" "):rep(columns - M.width(text))
end

---Puts a word behind a line, or pieces of it into lines of their own.
local function add_word(lines, line, word, columns)
  local joined = line == "" and word or line .. " " .. word
  if M.width(joined) <= columns then return joined end
  if line ~= "" then lines[#lines + 1] = line end
  while M.width(word) > columns do
    local size = columns_of.fitting(word, columns)
    lines[#lines + 1] = word:sub(1, size)
    word = word:sub(size + 1)
  end
  return word
end

---@param text string clean
---@param columns integer
---@return string[] lines at least one
function M.wrap(text, columns)
  local lines = {}
  columns = math.max(columns, 8)
  for paragraph in (text .. "\n"):gmatch("(.-)\n") do
    local line = ""
    for word in paragraph:gmatch("%S+") do line = add_word(lines, line, word, columns) end
    lines[#lines + 1] = line
  end
  while #lines > 1 and lines[#lines] == "" do lines[#lines] = nil end
  return lines
end

---Wrapped and indented, as one text without a line feed at its end.
---@param text string clean
---@param columns integer
---@param indent string
---@return string
function M.block(text, columns, indent)
  local lines = M.wrap(text, columns - #indent)
  return indent .. table.concat(lines, "\n" .. indent)
end

local function widest_word(text)
  local most = 0
  for word in text:gmatch("%S+") do most = math.max(most, M.width(word)) end
  return most
end

--- Takes from the widest column that is wider than its least width, one by one.
local function shrink(widths, least, too_much)
  while too_much > 0 do
    local widest
    for i, width in ipairs(widths) do
      if width > least[i] and (not widest or width > widths[widest]) then widest = i end
    end
    if not widest then break end
    widths[widest], too_much = widths[widest] - 1, too_much - 1
  end
  return too_much
end

--- The last column is the one that may hold anything: its words may be broken.
local LAST_LEAST = 16

--- How wide each column is when all together may take `columns`; nil when they would have to break
--- the words of any column but the last.
local function column_widths(rows, columns)
  local widths, words, total = {}, {}, -2
  for _, row in ipairs(rows) do
    for i, cell in ipairs(row) do
      widths[i] = math.max(widths[i] or 0, M.width(cell))
      words[i] = math.max(words[i] or 0, widest_word(cell))
    end
  end
  for _, width in ipairs(widths) do total = total + width + 2 end
  local too_much = shrink(widths, words, total - columns)
  words[#words] = math.min(words[#words], LAST_LEAST)
  return shrink(widths, words, too_much) <= 0 and widths or nil
end

local function add_row(out, row, widths)
  local cells, height = {}, 1
  for i, cell in ipairs(row) do
    cells[i] = M.wrap(cell, widths[i])
    height = math.max(height, #cells[i])
  end
  for n = 1, height do
    local parts = {}
    for i, lines in ipairs(cells) do parts[i] = M.pad(lines[n] or "", widths[i]) end
    out[#out + 1] = (table.concat(parts, "  "):gsub(" +$", ""))
  end
end

---A name and its value, which goes on below itself.
---@param out string[] gets the lines
---@param name string
---@param value string clean
---@param width integer of the longest name
---@param columns integer
---@param colour boolean
function M.add_member(out, name, value, width, columns, colour)
  for i, line in ipairs(M.wrap(value, columns - width - 2)) do
    local label = M.pad(i == 1 and name or "", width)
    out[#out + 1] = M.paint("bold", label, colour and i == 1) .. "  " .. line
  end
end

--- For a terminal too narrow for columns: each row as a list of its cells.
local function listed(head, rows, columns, colour)
  local out, width = {}, 0
  for _, name in ipairs(head) do width = math.max(width, M.width(name)) end
  for n, row in ipairs(rows) do
    if n > 1 then out[#out + 1] = "" end
    for i, cell in ipairs(row) do
      if cell ~= "" then M.add_member(out, head[i], cell, width, columns, colour) end
    end
  end
  return table.concat(out, "\n") .. "\n"
end

---Rows of clean texts under a head.
---@param head string[]
---@param rows string[][]
---@param columns integer
---@param colour boolean
---@return string
function M.table(head, rows, columns, colour)
  local all, out = { head, table.unpack(rows) }, {}
  local widths = column_widths(all, columns)
  if not widths then return listed(head, rows, columns, colour) end
  for _, row in ipairs(all) do add_row(out, row, widths) end
  out[1] = M.paint("bold", out[1], colour)
  return table.concat(out, "\n") .. "\n"
end

---Year, month and day of the `days`-th day since 1970-01-01.
local function civil(days)
  local shifted = days + 719468 -- since 0000-03-01, so that leap days end a year
  local era = shifted // 146097
  local day_of_era = shifted - era * 146097
  local year = (day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096) // 365
  local day_of_year = day_of_era - (365 * year + year // 4 - year // 100)
  local month = (5 * day_of_year + 2) // 153
  local day = day_of_year - (153 * month + 2) // 5 + 1
  month = month < 10 and month + 3 or month - 9
  return year + era * 400 + (month <= 2 and 1 or 0), month, day
end

---@param first any milliseconds
---@param last any
---@return string took "" when they are no numbers
function M.took(first, last)
  if math.type(first) ~= "integer" or math.type(last) ~= "integer" then return "" end
  return ("%d ms"):format(last - first)
end

local SPANS = { { "d", 86400000 }, { "h", 3600000 }, { "min", 60000 }, { "s", 1000 } }

---How long something takes, in the largest unit of which it has three or more, but whole seconds.
---@param ms integer
---@return string span "130 s"
function M.span(ms)
  for _, unit in ipairs(SPANS) do
    local count = ms // unit[2]
    if count >= 3 or unit[1] == "s" and count >= 1 then return ("%d %s"):format(count, unit[1]) end
  end
  return ("%d ms"):format(ms)
end

---@param ms any milliseconds since 1970
---@return string time "2026-11-22 14:07:28" in UTC; "" when it is no number
function M.time(ms)
  if math.type(ms) ~= "integer" then return "" end
  local seconds = ms // 1000
  local year, month, day = civil(seconds // 86400)
  local rest = seconds % 86400
  return ("%04d-%02d-%02d %02d:%02d:%02d"):format(year, month, day, rest // 3600,
    rest // 60 % 60, rest % 60)
end

return M
