--- `input_schema`: compiled at load, applied to each answer. Decides what is asked for, what is
--- accepted, and what a refused person is told.
---
--- A structured input is answered all at once by an object, or field by field by plain answers; the
--- fields that are filled so far are in `partial`, which the caller keeps.
local answer = require "tidemill.answer"
local fault = require "tidemill.fault"
local fields = require "tidemill.fields"
local json = require "host.json"
local schema = require "tidemill.schema"
local text = require "host.text"
local view = require "tidemill.view"

local M = {}

---@class tidemill.Option
---@field label string
---@field value string|number|boolean
---@field lower string the label for matching

---@class tidemill.Input
---@field type string
---@field name string? of a field
---@field prompt string? of a field
---@field required boolean
---@field min_length integer?
---@field max_length integer?
---@field pattern string?
---@field min (number|string)?
---@field max (number|string)?
---@field options tidemill.Option[]?
---@field allow_custom_response boolean?
---@field placeholder string?
---@field validation_hints table?
---@field validate (fun(value: any, ctx: tm.Context): boolean?, string?)?
---@field fields tidemill.Input[]? in declared order
---@field by_name table<string, tidemill.Input>?
---@field public any what the client sees, as JSON that is written verbatim
---@field public_next any[]? of a structured input: the same with `next`, by position of that field

---@class tidemill.Accepted
---@field value any the whole answer; nil while fields are missing
---@field outcome string? where it is not the value: "custom"
---@field partial table? fields filled so far, when some are missing, or all are asked for again

local function compile_options(options, report)
  local compiled, seen, labels = {}, {}, {}
  for i, option in ipairs(options) do
    if type(option) == "string" then option = { label = option, value = option } end
    local where = ("option %d"):format(i)
    if type(option) ~= "table" then
      report(where .. ": must be a text or { label = …, value = … }", "fields")
    elseif schema.check(fields.option, option, where, report) then
      local value = option.value == nil and option.label or option.value
      local key, lower = tostring(value), text.lower(option.label)
      if seen[key] then report(("%s: value '%s' is there twice"):format(where, key), "fields") end
      if labels[lower] then
        report(("%s: label '%s' is there twice; nobody could tell them apart")
          :format(where, option.label), "fields")
      end
      seen[key], labels[lower] = true, true
      compiled[#compiled + 1] = { label = option.label, value = value, lower = lower }
    end
  end
  if #options == 0 then report("'options' is empty", "fields") end
  return compiled
end

local function check_bound(input, name, report)
  local value = input[name]
  if value == nil then return end
  if input.type == "date" then
    if type(value) ~= "string" or not answer.is_date(value) then
      report(("'%s' must be a date such as \"2025-03-31\""):format(name), "fields")
    end
  elseif not schema.is_number(value) then
    report(("'%s' must be a finite number"):format(name), "fields")
  end
end

local RULES = { required = true, type = true, min_length = true, max_length = true, pattern = true,
  min = true, max = true, option = true, validate = true, structured = true }

--- Hints are given by rule, or as a list by attempt.
local function check_hints(hints, report)
  for _, rule in ipairs(schema.sorted_keys(hints)) do
    if not RULES[rule] then
      report(("'validation_hints' names '%s', which is no rule%s"):format(rule,
        schema.hint(rule, RULES)), "fields")
    end
  end
end

local function check_consistency(input, report)
  check_bound(input, "min", report)
  check_bound(input, "max", report)
  if input.min_length and input.max_length and input.min_length > input.max_length then
    report("'min_length' is greater than 'max_length': no answer can fit", "fields")
  end
  if type(input.min) == type(input.max) and input.min and input.min > input.max then
    report("'min' is greater than 'max': no answer can fit", "fields")
  end
  if input.pattern and not pcall(string.find, "", input.pattern) then
    report(("'pattern' is no Lua pattern: %s"):format(input.pattern), "fields")
  end
  check_hints(input.validation_hints or {}, report)
end

local COPIED = { "type", "name", "prompt", "min_length", "max_length", "pattern", "min", "max",
  "allow_custom_response", "placeholder", "validate" }
local PUBLIC = { "type", "name", "prompt", "required", "min_length", "max_length", "min", "max",
  "allow_custom_response", "placeholder" }

--- What a client needs to show a form; functions and patterns stay here.
local function public_table(input)
  local shown = {}
  for _, key in ipairs(PUBLIC) do shown[key] = input[key] end
  if input.options then
    shown.options = json.array {}
    for i, option in ipairs(input.options) do
      shown.options[i] = { label = option.label, value = option.value }
    end
  end
  if input.fields then
    shown.fields = json.array {}
    for i, field in ipairs(input.fields) do shown.fields[i] = public_table(field) end
  end
  return shown
end

local function publish(input)
  local shown = public_table(input)
  input.public = json.raw(assert(json.encode(shown)))
  if not input.fields then return end
  input.public_next = {}
  for i, field in ipairs(input.fields) do
    shown.next = field.name
    input.public_next[i] = json.raw(assert(json.encode(shown)))
  end
end

local compile

local function compile_fields(given, report)
  local list, by_name = {}, {}
  for i, raw in ipairs(given) do
    local label = type(raw) == "table" and type(raw.name) == "string" and raw.name or i
    local function report_field(problem, rule)
      report(("field '%s': %s"):format(label, problem), rule)
    end
    local field = compile(raw, report_field, fields.field)
    if field and field.name then
      if by_name[field.name] then report_field("this name is there twice", "fields") end
      if not field.name:find("^[%a_][%w_]*$") then
        report_field("'name' must be a word of letters, digits and _", "fields")
      end
      by_name[field.name] = field
      list[#list + 1] = field
    end
  end
  if #given == 0 then report("'fields' is empty", "fields") end
  return list, by_name
end

function compile(given, report, known)
  if type(given) ~= "table" then return report("must be a table", "fields") end
  local map = given.fields
  if type(map) == "table" and not schema.is_list(map) then
    return report("'fields' must be a list, so that the fields have an order: "
      .. "fields = { { name = \"…\", type = \"text\", … }, … }", "fields")
  end
  if not schema.check(known, given, "input", report, given.type) then return end
  local input = { required = given.required or false }
  for _, key in ipairs(COPIED) do input[key] = given[key] end
  input.validation_hints = given.validation_hints and view.copy(given.validation_hints)
  check_consistency(input, report)
  if given.options then input.options = compile_options(given.options, report) end
  if map then input.fields, input.by_name = compile_fields(map, report) end
  return input
end

---Compiles an input_schema; nil when it is unusable. Everything wrong with it is reported.
---@param given any
---@param report fun(text: string, rule: string)
---@return tidemill.Input?
function M.compile(given, report)
  local clean = true
  local input = compile(given, function(problem, rule)
    clean = false
    report("input_schema: " .. problem, rule)
  end, fields.input_schema)
  if not input or not clean then return nil end
  publish(input)
  return input
end

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

local function accept_object(input, raw, partial, context, attempt)
  local value, reasons, is_missing = accept_fields(input, raw, partial, context, attempt)
  for _, key in ipairs(schema.sorted_keys(raw)) do
    if not input.by_name[key] and not (input.first_only and reasons[1]) then
      reasons[#reasons + 1] = ("%s: there is no such field%s."):format(key,
        schema.hint(key, input.by_name))
    end
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
