---@meta host.json
-- luacheck: no unused args
--- Exact JSON. What cannot be kept is refused with its place: functions, userdata, threads, NaN,
--- infinities, text or keys that are not UTF-8, NUL in keys, keys that are no text, tables that are
--- array and object at once or have holes, more than 64 levels (also circles), more than 8 MiB.
--- Codes: `json.value`, `json.key`, `json.depth`, `json.too_large`, `json.too_many`,
--- `json.invalid`.
local json = {}

---Canonical text: sorted keys, no blanks; floats always look like floats. A table with the keys
---1 to n is an array, one with text keys an object; `{}` is an object unless marked.
---@param value any
---@return string? text
---@return host.Error? err
function json.encode(value) end

---Arrays carry the mark, null is `json.null`, integers stay integers.
---@param text string
---@param max_values integer? more are refused; give it for text from outside
---@return any value
---@return host.Error? err
function json.decode(text, max_values) end

---Of text that `encode` made, and faster than decode. Raises on anything else.
---@param text string
---@return any value
function json.restore(text) end

---As encode, without the text.
---@param value any
---@return true? ok
---@return host.Error? err
function json.check(value) end

---Marks a table as array, so that it is `[]` when empty. A table with another metatable is refused.
---@generic T: table
---@param t T? a new one by default
---@return T t
function json.array(t) end

---@param t any
---@return boolean marked
function json.is_array(t) end

---A value that encodes as this JSON text, verbatim and unchecked.
---@param text string
---@return userdata value
function json.raw(text) end

---JSON's null: equal to itself only, true in a condition.
---@type lightuserdata
json.null = 0 --[[@as lightuserdata]]

return json
