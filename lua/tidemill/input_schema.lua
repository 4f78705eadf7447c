--- `input_schema`, compiled at load: its fields, options, bounds and hints checked, and what
--- clients are shown of it.
local answer = require "tidemill.answer"
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

return M
