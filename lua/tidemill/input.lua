--- A compiled `input_schema` applied to each answer: decides what is asked for, what is accepted,
--- and what a refused person is told.
---
--- A structured input is answered all at once by an object, or field by field by plain answers; the
--- fields that are filled so far are in `partial`, which the caller keeps.
local answer = require "tidemill.answer"
local fault = require "tidemill.fault"
local json = require "host.json"
local schema = require "tidemill.schema"
local text = require "host.text"
local view = require "tidemill.view"

local M = {}

---@class tidemill.Accepted
---@field value any the whole answer; nil while fields are missing
---@field outcome string? where it is not the value: "custom"
---@field partial table? fields filled so far, when some are missing, or all are asked for again

local function is_blank(raw)
  return raw == nil or raw == json.null or type(raw) == "string" and text.trim(raw) == ""
end

--- nil, or why the script's validate refuses the value.
local function refused_by_script(input, value, context)
  if not input.validate then return nil end
  local fine, reason = input.validate(value, context())
  if fine then return nil end
  if type(reason) ~= "string" then reason = "This answer is not accepted." end
  local _, refusal = answer.refuse("validate", fault.printable(reason))
  return refusal
end

--- `context()` gives the ctx for a validate function.
local function accept_single(input, raw, context)
  if is_blank(raw) then
    if input.required then return answer.refuse("required", "An answer is needed here.") end
    if input.type == "text" then return "" end
    return json.null
  end
  local value, refusal, outcome = answer[input.type](input, raw)
  if value == nil then return nil, refusal end
  refusal = refused_by_script(input, value, context)
  if refusal then return nil, refusal end
  return value, nil, outcome
end

local function label_of(field)
  return field.prompt or field.name
end

--- The hint for a refusal: by rule, or of a list by the number of the attempt.
local function hint_of(input, rule, attempt)
  local hints = input.validation_hints
  if not hints then return nil end
  return hints[rule] or hints[math.min(attempt, #hints)]
end

local function explain(input, refusal, attempt)
  local hint = hint_of(input, refusal.rule, attempt)
  return hint and refusal.reason .. " " .. hint or refusal.reason
end

--- The values of the fields, and why some were refused. What a form that may be filled bit by bit
--- does not hold yet is not refused; the third result says whether something is missing.
local function accept_fields(input, raw, partial, context, attempt)
  local value, reasons, is_missing = {}, {}, false
  for _, field in ipairs(input.fields) do
    local given = raw[field.name]
    if given == nil then given = partial[field.name] end
    if given == nil and input.by_and_by and field.required then
      is_missing = true
    else
      local accepted, refusal = accept_single(field, given, context)
      if refusal then
        reasons[#reasons + 1] = ("%s: %s"):format(field.name, explain(field, refusal, attempt))
        if input.first_only then return value, reasons end
      end
      value[field.name] = accepted
    end
  end
  return value, reasons, is_missing
end

--- The fields that were given, now or before, and accepted.
local function filled(value, raw, partial)
  local kept = {}
  for name, accepted in pairs(value) do
    if raw[name] ~= nil or partial[name] ~= nil then kept[name] = accepted end
  end
  return kept
end

local UNKNOWN_MOST = 5

--- The members that are no fields, as far as it is worth telling.
local function add_unknown(reasons, input, raw, most)
  for _, key in ipairs(schema.sorted_keys(raw)) do
    if most > 0 and not input.by_name[key] then
      most = most - 1
      reasons[#reasons + 1] = ("%s: there is no such field%s."):format(fault.printable(key, 64),
        #key <= 64 and schema.hint(key, input.by_name) or "")
    end
  end
end

local function accept_object(input, raw, partial, context, attempt)
  local value, reasons, is_missing = accept_fields(input, raw, partial, context, attempt)
  if not (input.first_only and reasons[1]) then
    add_unknown(reasons, input, raw, input.first_only and 1 or UNKNOWN_MOST)
  end
  local hint = reasons[1] and table.concat(reasons, " ")
  if not hint and not is_missing then return { value = value } end
  return input.by_and_by and { partial = filled(value, raw, partial) } or nil, hint
end

local function is_empty(value)
  for _, given in pairs(value) do
    if not is_blank(given) then return false end
  end
  return true
end

--- All fields are fine by themselves; refused as a whole they are all asked for again.
local function accept_whole(input, accepted, context, attempt)
  local refusal
  if input.required and is_empty(accepted.value) then
    refusal = select(2, answer.refuse("required", "An answer is needed here."))
  end
  refusal = refusal or refused_by_script(input, view.copy(accepted.value), context)
  if not refusal then return accepted end
  return { partial = {} }, explain(input, refusal, attempt)
end

---The position of the first field that is not filled yet.
---@param input tidemill.Input
---@param partial table?
---@return integer?
function M.next_field(input, partial)
  for i, field in ipairs(input.fields) do
    if not partial or partial[field.name] == nil then return i end
  end
end

local function accept_field(input, raw, partial, context, attempt)
  local field = input.fields[M.next_field(input, partial)]
  local value, refusal = accept_single(field, raw, context)
  if refusal then
    return nil, ("%s: %s"):format(label_of(field), explain(field, refusal, attempt))
  end
  local all = { [field.name] = value }
  for name, earlier in pairs(partial) do all[name] = earlier end
  if M.next_field(input, all) then return { partial = all } end
  return { value = all }
end

---Another value for a field that is filled. nil: it is refused.
---@param input tidemill.Input
---@param name string
---@param raw any
---@param partial table
---@param context fun(): tm.Context
---@return table? partial
---@return string? hint
function M.change(input, name, raw, partial, context)
  local field = input.by_name[name]
  local value, refusal = accept_single(field, raw, context)
  if refusal then return nil, ("%s: %s"):format(label_of(field), explain(field, refusal, 1)) end
  local all = { [name] = value }
  for other, earlier in pairs(partial) do
    if other ~= name then all[other] = earlier end
  end
  return all
end

---Applies an answer. `partial` holds the fields that were filled before; `attempt` counts from 1.
---@param input tidemill.Input
---@param raw any
---@param partial table?
---@param attempt integer
---@param context fun(): tm.Context
---@return tidemill.Accepted?
---@return string? hint why it was refused and what helps
function M.accept(input, raw, partial, attempt, context)
  if input.type ~= "structured" then
    local value, refusal, outcome = accept_single(input, raw, context)
    if refusal then return nil, explain(input, refusal, attempt) end
    return { value = value, outcome = outcome }
  end
  local accepted, hint
  if type(raw) == "table" and not json.is_array(raw) then
    accepted, hint = accept_object(input, raw, partial or {}, context, attempt)
  elseif type(raw) == "table" then
    hint = "Please answer with an object, one member per field."
  else
    accepted, hint = accept_field(input, raw, partial or {}, context, attempt)
  end
  if accepted and accepted.value then return accept_whole(input, accepted, context, attempt) end
  local more = hint and hint_of(input, "structured", attempt)
  return accepted, more and hint .. " " .. more or hint
end

---Of a form that was half filled by the rules of another version, what these rules take as well.
---@param input tidemill.Input
---@param partial table
---@return table? partial
function M.still(input, partial)
  local kept = {}
  for name, value in pairs(partial) do
    local field = input.by_name and input.by_name[name]
    local blank = is_blank(value)
    if field and (blank and not field.required or not blank and answer[field.type](field, value)
      ~= nil) then
      kept[name] = value
    end
  end
  return next(kept) and kept or nil
end

---What stands in state for a question that was skipped; nil when it needs an answer.
---@param input tidemill.Input
---@return any
function M.blank(input)
  if input.required then return nil end
  if not input.fields then return input.type == "text" and "" or json.null end
  local value = {}
  for _, field in ipairs(input.fields) do
    value[field.name] = M.blank(field)
    if value[field.name] == nil then return nil end
  end
  return value
end

---Whether fields of a form are filled, but not all.
---@param partial table?
---@return boolean
function M.is_begun(partial)
  return partial ~= nil and next(partial) ~= nil
end

---Whether what is asked for may stay without an answer: all of it, or of a form that is begun the
---field that comes next.
---@param input tidemill.Input
---@param partial table?
---@return boolean
---@return string? reason
function M.may_skip(input, partial)
  if not M.is_begun(partial) then
    return M.blank(input) ~= nil, "This question cannot be skipped."
  end
  local field = input.fields[M.next_field(input, partial)]
  return not field.required, ("%s: This field is required."):format(label_of(field))
end

---What may be answered, for people.
---@param input tidemill.Input
---@return string
function M.expected(input)
  if input.fields then
    local names = {}
    for i, field in ipairs(input.fields) do names[i] = label_of(field) end
    return ("Please answer, one after another: %s."):format(table.concat(names, ", "))
  end
  local _, refusal = answer[input.type](input, json.null)
  return refusal.reason
end

---The fields that need a value and have none yet, for people.
---@param input tidemill.Input
---@param partial table?
---@return string[]
function M.open(input, partial)
  local open = {}
  for _, field in ipairs(input.fields or {}) do
    local is_open = not partial or partial[field.name] == nil
    if field.required and is_open then open[#open + 1] = label_of(field) end
  end
  return open
end

---What the client sees of the input, and what is appended to the prompt: the question of the field
---that a plain answer would fill.
---@param input tidemill.Input
---@param partial table?
---@return any public
---@return string? question
function M.shown(input, partial)
  if not input.fields then return input.public end
  local i = M.next_field(input, partial) or 1
  return input.public_next[i], input.fields[i].prompt
end

return M
