--- What must hold for templates and answers, whatever they are made of. The input of the fuzzer is
---   "T" SCOPE newline SOURCE     a template and the scope it is rendered in, JSON
---   "I" SCHEMA newline ANSWER    an input_schema and an answer, both JSON
package.path = "lua/?.lua;lua/?/init.lua;" .. package.path
for name, f in pairs(require "hostlua.string") do rawset(string, name, f) end

local input = require "tidemill.input"
local input_schema = require "tidemill.input_schema"
local json = require "host.json"
local template = require "tidemill.template"

--- A fault is a table with a code; anything else is a mistake of the runtime.
local function guarded(f, ...)
  local result = table.pack(pcall(f, ...))
  if result[1] then return table.unpack(result, 2, result.n) end
  local err = result[2]
  assert(type(err) == "table" and type(err.code) == "string" and err.code:find "^[%l_]+%.[%l_]+$",
    "no fault: " .. tostring(err))
  return nil, err
end

local function is_text(value)
  return type(value) == "string" and value ~= "" and utf8.len(value)
end

--- The source that a compiled template could have come from.
local function source_of(compiled)
  local parts = {}
  for i, segment in ipairs(compiled.segments) do
    if type(segment) == "string" then
      parts[i] = segment:gsub("{", "{{")
    else
      parts[i] = "{" .. segment.name .. (segment.default and "|" .. segment.default or "") .. "}"
    end
  end
  return table.concat(parts)
end

local function check_template(scope_text, source)
  local scope = json.decode(scope_text)
  if type(scope) ~= "table" or not utf8.len(source) then return end
  local compiled, problem = template.compile(source)
  if not compiled then
    assert(is_text(problem))
    return
  end
  assert(#compiled.names < #source or #source == 0)
  local parts = { config = {}, session = {}, state = scope }
  local rendered, err = guarded(template.render, compiled, parts)
  assert(rendered or err.code == "template.unknown_name", err and err.code)
  local again = assert(template.compile(source_of(compiled)))
  assert(guarded(template.render, again, parts) == rendered)
  local most = #source + #compiled.names * 8 * (#scope_text + 32)
  assert(not rendered or #rendered <= most)
end

local function context() return { state = {} } end

--- A kept value can be stored, and the same answer is judged the same way.
local function check_accepted(compiled, answer)
  local accepted, hint = guarded(input.accept, compiled, answer, nil, 1, context)
  if not accepted then
    assert(type(hint) == "table" or is_text(hint))
    return
  end
  if accepted.value == nil then return end
  local stored = assert(json.encode(accepted.value))
  local second = guarded(input.accept, compiled, answer, nil, 1, context)
  assert(json.encode(second.value) == stored)
end

local function check_input(schema_text, answer_text)
  local schema, answer = json.decode(schema_text), json.decode(answer_text)
  if type(schema) ~= "table" or answer == nil then return end
  local reported = 0
  local compiled = input_schema.compile(schema, function(text)
    assert(is_text(text))
    reported = reported + 1
  end)
  assert((compiled == nil) == (reported > 0), "neither usable nor refused")
  if not compiled then return end
  check_accepted(compiled, answer)
  local public = input.shown(compiled, nil)
  assert(json.encode(public))
end

return function(data)
  local kind, first, rest = data:match "^([TI])([^\n]*)\n(.*)$"
  if kind == "T" then check_template(first, rest) end
  if kind == "I" then check_input(first, rest) end
end
