--- Which names the steps of a flow bring into state, and which names of templates, conditions and
--- required_context nothing brings there.
local paths = require "tidemill.check.paths"

local M = {}

local SESSION = { session = true, session_id = true, user_id = true }

--- Lua code may write any name into state; then an unknown name is only suspicious.
local function has_writing_code(system, flow)
  for _, id in ipairs(flow.step_order) do
    local step = flow.steps[id]
    local agent = step.agent and system.agents[step.agent]
    if step.step_type == "action" or agent and agent.type == "custom" then return true end
  end
  return false
end

---@class tidemill.Names
---@field system tidemill.System
---@field flow tidemill.Flow
---@field writers table<string, table<string, true>> by name: ids of the steps that set it
---@field open boolean Lua code may set further names
---@field outer tidemill.Names? whose state was there when the branch began

---@param system tidemill.System
---@param flow tidemill.Flow
---@param outer tidemill.Names? of the flow whose branch it is
---@return tidemill.Names
function M.of(system, flow, outer)
  local writers = {}
  for _, id in ipairs(flow.step_order) do
    for _, name in ipairs(flow.steps[id].writes) do
      writers[name] = writers[name] or {}
      writers[name][id] = true
    end
  end
  local open = has_writing_code(system, flow) or outer ~= nil and outer.open
  return { system = system, flow = flow, writers = writers, open = open, outer = outer }
end

local function first_part(name)
  return name:match("^[^.]+")
end

local is_set

---Is the name there from the start: a variable, the session, the configuration?
---@param names tidemill.Names
---@param name string "a.b"
---@return boolean
function M.is_given(names, name)
  local first = first_part(name)
  if names.outer and is_set(names.outer, name) then return true end
  return names.flow.variables[first] ~= nil or SESSION[first] or first == "config"
    or names.system.config[first] ~= nil or false
end

---@param names tidemill.Names
---@param name string
---@return boolean
function is_set(names, name)
  return M.is_given(names, name) or names.writers[first_part(name)] ~= nil
end
M.is_set = is_set

--- The nearest name that is set, as a hint.
local function hint(names, name)
  local known = {}
  for writer in pairs(names.writers) do known[writer] = true end
  for variable in pairs(names.flow.variables) do known[variable] = true end
  return require("tidemill.schema").hint(name, known)
end

local HOW = "save it by save_as or data_collection of an earlier step, or declare it in variables"

--- One use of a name by a step. `what` is how the message calls it.
local function check_use(names, step, name, what, rule, report)
  if M.is_given(names, name) then return end
  local writers = names.writers[first_part(name)]
  if not writers then
    local level = names.open and "warning" or "error"
    return report(step, ("%s, which nothing sets%s; %s"):format(what, hint(names, name), HOW), rule,
      level)
  end
  local way = paths.way(names.flow, step.step_id, function(id) return writers[id] == true end)
  if way then
    report(step, ("%s, which nothing sets on the way %s"):format(what, way), rule, "warning")
  end
end

local function check_template(names, step, field, template, report)
  for _, used in ipairs(type(template) == "table" and template.names or {}) do
    local is_transcript = used.name == "transcript" and step.metadata.conversation_summary
    if not used.default and not is_transcript then
      check_use(names, step, used.name, ("'%s' names {%s}"):format(field, used.name), "templates",
        report)
    end
  end
end

---Templates and required_context of every step.
---@param names tidemill.Names
---@param report fun(step: tidemill.Step, text: string, rule: string, level: string?)
function M.check(names, report)
  for _, id in ipairs(names.flow.step_order) do
    local step = names.flow.steps[id]
    check_template(names, step, "prompt", step.prompt, report)
    check_template(names, step, "response", step.response, report)
    check_template(names, step, "event", step.event, report)
    check_template(names, step, "response of review", step.review and step.review.response, report)
    for _, rungs in ipairs { step.no_match or {}, step.no_input or {} } do
      for _, rung in ipairs(rungs) do check_template(names, step, "say", rung.say, report) end
    end
    for name, given in pairs(step.arguments or {}) do
      check_template(names, step, "arguments." .. name, given, report)
    end
    for _, name in ipairs(step.required_context) do
      check_use(names, step, name, ("metadata.required_context asks for '%s'"):format(name),
        "context", report)
    end
  end
end

return M
