---@meta host.text
-- luacheck: no unused args
--- Text by characters. All but `valid` and `match` raise on text that is not UTF-8.
local text = {}

---@param s string
---@return integer characters
function text.length(s) end

---@param s string
---@return boolean utf8
function text.valid(s) end

---Lower case of Latin, Greek, Cyrillic and Armenian letters, whatever the locale.
---@param s string
---@return string
function text.lower(s) end

---Without the white space at both ends, Unicode's included.
---@param s string
---@return string
function text.trim(s) end

---As string.sub, in characters.
---@param s string
---@param i integer
---@param j integer?
---@return string
function text.sub(s, i, j) end

---Does a Lua pattern match, by the rules of string.find? Codes: `text.too_hard` (needs too
---many steps), `text.pattern` (malformed).
---@param s string
---@param pattern string
---@return boolean? found
---@return host.Error? err
function text.match(s, pattern) end

---How many letters must be inserted, deleted, replaced or swapped with their neighbour; the length
---of the longer text when one has more than 128 characters.
---@param a string
---@param b string
---@return integer
function text.distance(a, b) end

return text
