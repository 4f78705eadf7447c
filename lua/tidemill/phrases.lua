--- What a user says instead of an answer: texts that a flow has for its commands. Each is the whole
--- answer, compared without upper case, blanks at its ends and . ! ? behind it; what is an option
--- of what is asked for is an answer. Those of `correct` have two holes: which answer, by its name
--- or as it was asked for, and what it should have been. A text without a known name is an answer.
local fault = require "tidemill.fault"
local input = require "tidemill.input"
local schema = require "tidemill.schema"
local template = require "tidemill.template"
local text = require "host.text"

local M = {}

--- Of one language.
---@class tidemill.Phrases
---@field words table<string, string> commands by normalized text
---@field holes tidemill.Holes[]

---@class tidemill.Holes
---@field before string lower case, as the other two
---@field first "name"|"input"
---@field between string
---@field behind string

local COMMANDS = { back = true, skip = true, cancel = true, restart = true, help = true,
  correct = true }

local NAME_BYTES, INPUT_BYTES = 200, 4000
local PHRASE_BYTES, SAID_BYTES = 2000, 16000 -- what is longer than that is an answer

---Whether it may be a phrase at all.
---@param said any what the user said
---@return boolean
function M.may_be(said)
  return type(said) == "string" and #said <= SAID_BYTES
end

---As phrases are compared; a text of nothing but punctuation stays as it is.
---@param said string
---@return string
function M.normalized(said)
  local lower = text.lower(text.trim(said))
  return lower:match "^.*[^%s.!?]" or lower
end

--- The input that is asked for: of a form its first field that is not filled.
local function asked_for(run, step)
  local wait = run.runtime.wait
  if not step.input or wait.failed then return nil end
  if not step.input.fields then return step.input end
  return step.input.fields[input.next_field(step.input, wait.partial)]
end

---Whether it is an option of what the step asks for, by label or value.
---@param run tidemill.Run
---@param step tidemill.Step at which the conversation waits
---@param said string normalized
---@return boolean
function M.is_option(run, step, said)
  local asked = asked_for(run, step)
  for _, option in ipairs(asked and asked.options or {}) do
    if M.normalized(option.label) == said then return true end
    if M.normalized(template.display(option.value)) == said then return true end
  end
  return false
end

---- at load ----

---@param phrase any
---@param what string
---@param report fun(text: string, rule: string)
---@return string? normalized
function M.compile_one(phrase, what, report)
  if type(phrase) ~= "string" or not utf8.len(phrase) then
    return report(what .. ": must be a list of texts", "fields")
  elseif #phrase > PHRASE_BYTES then
    return report(("%s: a phrase has at most %d bytes"):format(what, PHRASE_BYTES), "fields")
  end
  local said = M.normalized(phrase)
  if said ~= "" then return said end
  return report(what .. ": an empty text is no phrase, for it is an answer", "fields")
end

local function compile_holes(phrase, what, report)
  local lower, shown = text.lower(text.trim(phrase)), fault.printable(phrase, 80)
  for _, hole in ipairs { "name", "input" } do
    local _, count = lower:gsub("{" .. hole .. "}", "")
    if count ~= 1 then
      return report(("%s: '%s' must have the hole {%s} once, as in \"change {name} to {input}\"")
        :format(what, shown, hole), "fields")
    end
  end
  local before, first, between, behind = lower:match "^([^{}]*){(%a+)}([^{}]*){%a+}([^{}]*)$"
  if not between or not between:find "%S" then
    return report(("%s: '%s' needs a word between its two holes, and no other brace")
      :format(what, shown), "fields")
  end
  return { before = before, first = first, between = between,
    behind = behind:match "^.*[^%s.!?]" or "" }
end

local function add_phrase(compiled, name, phrase, what, report)
  local said = M.compile_one(phrase, what, report)
  if said and name == "correct" then
    compiled.holes[#compiled.holes + 1] = compile_holes(phrase, what, report)
  elseif said then
    compiled.words[said] = name
  end
end

local function compile_language(given, what, report)
  local compiled = { words = {}, holes = {} }
  for _, name in ipairs(schema.sorted_keys(given)) do
    local where = ("%s.%s"):format(what, name)
    if not COMMANDS[name] then
      report(("%s: there is no command '%s'%s"):format(what, name, schema.hint(name, COMMANDS)),
        "fields")
    elseif not schema.is_list(given[name]) then
      report(where .. ": must be a list of texts", "fields")
    else
      for _, phrase in ipairs(given[name]) do add_phrase(compiled, name, phrase, where, report) end
    end
  end
  return compiled
end

---`phrases = { cancel = { "stop" } }`, or by language: `{ en = { cancel = … }, de = … }`.
---@param given table?
---@param report fun(text: string, rule: string)
---@return { all: tidemill.Phrases?, by: table<string, tidemill.Phrases>? }
function M.compile(given, report)
  local by_language = false
  for key, value in pairs(given or {}) do
    by_language = by_language or type(key) == "string" and not COMMANDS[key]
      and type(value) == "table" and not schema.is_list(value)
  end
  if not by_language then return { all = compile_language(given or {}, "phrases", report) } end
  local by = {}
  for _, language in ipairs(schema.sorted_keys(given)) do
    if type(given[language]) ~= "table" then
      report(("phrases.%s: must be a table of commands"):format(language), "fields")
    else
      by[language] = compile_language(given[language], "phrases." .. language, report)
    end
  end
  return { by = by }
end

---- what answers are called ----

local function called(said)
  return (M.normalized(said):gsub("_", " "))
end

local function add(names, said, name)
  local key = said and called(said) or ""
  if key == "" then return end
  local list = names[key] or {}
  for _, known in ipairs(list) do
    if known == name then return end
  end
  list[#list + 1], names[key] = name, list
end

local function add_steps(flow, names, labels)
  for _, id in ipairs(flow.step_order) do
    local step = flow.steps[id]
    if step.step_type == "user_input" then
      add(names, id, id)
      add(names, step.save_as, step.save_as)
      add(names, step.collects, step.collects)
      add(labels, step.prompt.static, id)
      for _, field in ipairs(step.input.fields or {}) do
        add(names, field.name, field.name)
        add(labels, field.prompt, field.name)
      end
    end
  end
end

--- The fields of the form that is begun come first, then names, then what was asked.
local function answers_of(run, step)
  local filled, names, labels = {}, {}, {}
  local wait = run.runtime.wait or {}
  for _, field in ipairs(not wait.failed and wait.partial and step.input.fields or {}) do
    if wait.partial[field.name] ~= nil then
      add(filled, field.name, field.name)
      add(filled, field.prompt, field.name)
    end
  end
  add_steps(run.flow, names, labels)
  if run.root ~= run.flow then add_steps(run.root, names, labels) end
  return function(key) return filled[key] or names[key] or labels[key] end
end

---- what the user said ----

--- What stands at these bytes of the lower case: that has as many characters, not as many bytes.
local function as_said(said, lower, from, to)
  local first = utf8.len(lower, 1, from - 1) + 1
  return text.trim(text.sub(said, first, utf8.len(lower, 1, to)))
end

--- Where the holes may be: from, to of the one with the name and of the other. A name is short, so
--- that what stands between them is looked for in its reach only.
local function each_split(holes, lower, from, to, consider)
  local name_first, between = holes.first == "name", holes.between
  local reach = NAME_BYTES + #between
  local low = name_first and from or math.max(from, to - reach + 1)
  local window = lower:sub(low, name_first and math.min(to, from + reach - 1) or to)
  local at = window:find(between, 1, true)
  while at do
    local first, last = low + at - 1, low + at + #between - 2
    if name_first then
      consider(from, first - 1, last + 1, to)
    else
      consider(last + 1, to, from, first - 1)
    end
    at = window:find(between, at + 1, true)
  end
end

--- With the longest name that is known.
local function fill(holes, said, lower, find)
  local subject = holes.behind == "" and lower or M.normalized(lower)
  local from, to = #holes.before + 1, #subject - #holes.behind
  local fits = to >= from and subject:sub(1, from - 1) == holes.before
    and subject:sub(to + 1) == holes.behind
  if not fits then return nil end
  local key, names, input_from, input_to
  each_split(holes, subject, from, to, function(i, j, k, l)
    local name = called(subject:sub(i, j))
    local is_input = l - k < INPUT_BYTES and subject:find("%S", k) and subject:find("%S", k) <= l
    if is_input and (not key or #name > #key) and find(name) then
      key, names, input_from, input_to = name, find(name), k, l
    end
  end)
  if not key then return nil end
  return names, as_said(said, lower, input_from, input_to)
end

--- The command that it makes; with `names` where more than one answer is called so.
local function correction(run, step, lists)
  local said = text.trim(run.input)
  local lower, find = text.lower(said), nil
  for _, list in ipairs(lists) do
    for _, holes in ipairs(list.holes) do
      find = find or answers_of(run, step)
      local names, given = fill(holes, said, lower, find)
      if names then
        return { command = "correct", name = names[1], names = names[2] and names, input = given,
          said = run.input }
      end
    end
  end
end

--- Of one language where the session says which (metadata.language), else of all.
local function add_lists(lists, phrases, language)
  if phrases.all then
    lists[#lists + 1] = phrases.all
  elseif phrases.by[language] then
    lists[#lists + 1] = phrases.by[language]
  else
    for _, other in ipairs(schema.sorted_keys(phrases.by)) do
      lists[#lists + 1] = phrases.by[other]
    end
  end
end

---The command that the user's message is a phrase of.
---@param run tidemill.Run
---@param step tidemill.Step at which the conversation waits
---@return string? name
---@return table? given of `correct`
function M.of(run, step)
  if not M.may_be(run.input) then return nil end
  local said, language, lists = M.normalized(run.input), run.session.metadata.language, {}
  add_lists(lists, run.flow.phrases, language)
  if run.root ~= run.flow then add_lists(lists, run.root.phrases, language) end
  local name, given
  for _, list in ipairs(lists) do name = name or list.words[said] end
  if not name then given = correction(run, step, lists) end
  name = name or given and "correct"
  if name and not M.is_option(run, step, said) then return name, given end
end

return M
