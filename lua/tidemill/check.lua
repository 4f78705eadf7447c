--- `tidemill check`: what is wrong with a system, beyond what stops it from being loaded.
---
--- Loading checks every field and reference by itself; the rules here need the whole picture:
--- `templates`, `context` and `conditions` (names that nothing sets), `branches`, `targets`,
--- `unreachable`, `no_end`, `ends`, `metadata` (labels that assert something), `agents`, `offline`,
--- `compensation`, `pattern` (the shape that a flow says it has), `variables` and `kept` (what
--- functions keep beside the conversation). No function of a script is called.
local branches = require "tidemill.check.branches"
local flows = require "tidemill.flow"
local json = require "host.json"
local kept = require "tidemill.check.kept"
local names_of = require "tidemill.check.names"
local paths = require "tidemill.check.paths"
local pattern = require "tidemill.pattern"
local schema = require "tidemill.schema"

local M = {}

-- Ways through a flow

local function check_reachable(flow, report)
  local reached = paths.reach(flow, flow.start_step)
  for _, id in ipairs(flow.step_order) do
    if id ~= flow.start_step and not reached[id] then
      report(flow.steps[id], "no way leads here from the start; name it in next_steps or in a "
        .. "branch of another step, or remove it", "unreachable", "warning")
    end
  end
end

local function check_ends(flow, report)
  for _, id in ipairs(flow.step_order) do
    local _, ends = paths.reach(flow, id)
    if not ends then
      report(flow.steps[id], "no way leads from here to an end: the conversation could never be "
        .. "complete; let a step go on to \"end\", or list the last one in end_steps", "no_end")
    end
  end
end

local function check_end_steps(flow, report)
  for _, id in ipairs(schema.sorted_keys(flow.end_steps)) do
    local step = flow.steps[id]
    local goes_on = step and step.next_steps[1]
    if goes_on then
      report(step, ("is one of end_steps, so the flow is complete after it and never goes on to "
        .. "'%s'; remove its next_steps, or the step from end_steps"):format(goes_on), "ends",
        "warning")
    end
  end
end

-- Labels that assert something

local assertions = {}

function assertions.decision_point(_, step)
  if not step.branches or next(step.branches) == nil then
    return "it has no branches; add conditional_logic"
  end
end

local function first_agent(flow)
  for _, id in ipairs(flow.step_order) do
    if flow.steps[id].agent then return flow.steps[id].agent end
  end
end

function assertions.requires_specialist(flow, step)
  if not step.agent then return "it has no agent" end
  if step.agent == first_agent(flow) then
    return ("its agent '%s' is the flow's first one; give it to another"):format(step.agent)
  end
end

function assertions.potential_loop_back(flow, step)
  if not paths.on_cycle(flow, step.step_id) then return "no path from it leads back" end
end

function assertions.allows_multiple_iterations(flow, step)
  if not paths.on_cycle(flow, step.step_id) then return "it is on no cycle, so it runs once" end
end

local function check_assertions(flow, report)
  for _, id in ipairs(flow.step_order) do
    local step = flow.steps[id]
    for _, label in ipairs(schema.sorted_keys(assertions)) do
      local problem = step.metadata[label] == true and assertions[label](flow, step)
      if problem then
        report(step, ("metadata.%s says otherwise than the flow: %s"):format(label, problem),
          "metadata")
      end
    end
  end
end

-- What an agent needs without a model

local function check_offline(system, flow, report)
  for _, id in ipairs(flow.step_order) do
    local step = flow.steps[id]
    local agent = step.agent and system.agents[step.agent]
    if agent and agent.provider == "offline" then
      if step.step_type == "agent_response" and not step.response then
        report(step, "has no 'response': without a model its agent has nothing to say", "offline",
          "warning")
      end
      if step.classify and step.outcome == nil then
        report(step, "has no 'outcome': without a model its agent cannot choose", "offline",
          "warning")
      end
    end
    local reviewer = step.review and system.agents[step.review.agent]
    if reviewer and reviewer.provider == "offline" and step.review.outcome == nil then
      report(step, ("its review has no 'outcome': without a model '%s' lets nothing pass; write "
        .. "review = { agent = \"%s\", outcome = … }"):format(reviewer.name, reviewer.name),
        "offline", "warning")
    end
  end
end

-- The system

local function check_agents(system, findings)
  local used = {}
  for _, whole in pairs(system.flows) do
    for _, flow in ipairs(flows.parts(whole)) do
      for _, step in pairs(flow.steps) do
        if step.agent then used[step.agent] = true end
        if step.review then used[step.review.agent] = true end
      end
    end
  end
  for _, name in ipairs(system.agent_order) do
    if not used[name] then
      findings:add(system.agents[name].source, ("agent '%s': no step uses it; remove it or give it "
        .. "a step"):format(name), "agents", "warning")
    end
  end
end

local function has_undo(system)
  for _, whole in pairs(system.flows) do
    for _, flow in ipairs(flows.parts(whole)) do
      for _, step in pairs(flow.steps) do
        if step.undo then return true end
      end
    end
  end
  return false
end

--- A sub-flow may be what has the steps that are undone.
local function check_compensation(system, findings)
  if has_undo(system) then return end
  for _, id in ipairs(system.flow_order) do
    local flow = system.flows[id]
    if flow.compensates then
      findings:add(flow.source, ("flow '%s': compensate_on_failure has nothing to run: no step has "
        .. "an 'undo'"):format(id), "compensation", "warning")
    end
  end
end

local function count_word(source, word)
  local count = 0
  for _ in source:gmatch("%f[%w_]" .. word .. "%f[^%w_]") do count = count + 1 end
  return count
end

--- A variable is used when its name stands anywhere but where it is declared.
local function check_variables(flow, sources, findings)
  for _, name in ipairs(schema.sorted_keys(flow.variables)) do
    local count = 0
    for _, source in ipairs(sources) do count = count + count_word(source.text, name) end
    if count < 2 then
      findings:add(flow.source, ("flow '%s': the variable '%s' is not used anywhere; remove it")
        :format(flow.flow_id, name), "variables", "warning")
    end
  end
end

--- Without a step that could not be compiled, and has its findings, the picture would be false.
local function is_whole(flow)
  for id in pairs(flow.known) do
    if not flow.steps[id] then return false end
  end
  return flow.steps[flow.start_step] ~= nil
end

--- A target that is misspelt has its finding; that its step is not reached is only what follows.
local function has_its_targets(flow)
  local function is_there(id) return id == nil or id == "end" or flow.steps[id] ~= nil end
  for _, id in ipairs(flow.step_order) do
    local step = flow.steps[id]
    if not is_there(step.on_error) then return false end
    for _, target in ipairs(paths.targets(step)) do
      if not is_there(target) then return false end
    end
  end
  return true
end

local function check_flow(system, flow, findings, outer)
  local function report(step, text, rule, level)
    findings:add(step.source, ("flow '%s', step '%s': %s"):format(flow.flow_id, step.step_id, text),
      rule, level)
  end
  local names = names_of.of(system, flow, outer)
  names_of.check(names, report)
  branches.check(names, report)
  if has_its_targets(flow) then
    check_reachable(flow, report)
    check_ends(flow, report)
  end
  check_end_steps(flow, report)
  check_assertions(flow, report)
  check_offline(system, flow, report)
  return names
end

--- Does the flow have the shape that its pattern names?
local function check_pattern(system, flow, findings)
  if not is_whole(flow) or not has_its_targets(flow) then return end
  local label = ("flow '%s': pattern '%s': "):format(flow.flow_id, flow.pattern)
  pattern.check(flow, function(step, text)
    local at = step and ("the step '%s' "):format(step.step_id) or ""
    findings:add(step and step.source or flow.source, label .. at .. text, "pattern")
  end, system)
end

--- The branches of parallel steps see the names of the flow around them.
local function check_parts(system, whole, findings)
  local outer
  for _, flow in ipairs(flows.parts(whole)) do
    if is_whole(flow) then
      local names = check_flow(system, flow, findings, outer)
      outer = outer or names
    end
  end
end

---@return { text: string, chunk: string }[]
local function read_sources(files)
  local file, sources = require "host.file", {}
  for i, path in ipairs(files) do
    local text, chunk = file.read(path)
    sources[i] = { text = text or "", chunk = text and chunk or path }
  end
  return sources
end

local GAPS = { fields = true, unsupported = true, agents = true }

--- Was a flow or a step left out, or an agent not found? It may be what uses another agent.
local function has_gaps(findings)
  for _, finding in ipairs(findings.items) do
    if GAPS[finding.rule] then return true end
  end
  return false
end

---Adds the findings of a system that could be loaded, or of the parts that could.
---@param system tidemill.System
---@param findings tidemill.Findings
function M.add(system, findings)
  local sources = read_sources(system.files)
  local is_complete = not has_gaps(findings)
  for _, id in ipairs(system.flow_order) do
    local flow = system.flows[id]
    check_parts(system, flow, findings)
    check_pattern(system, flow, findings)
    check_variables(flow, sources, findings)
  end
  kept.check(system, sources, findings)
  if is_complete then
    check_agents(system, findings)
    check_compensation(system, findings)
  end
end

local function by_place(a, b)
  if a.file ~= b.file then return a.file < b.file end
  if a.line ~= b.line then return a.line < b.line end
  if a.rule ~= b.rule then return a.rule < b.rule end
  return a.text < b.text
end

---Checks a system; the answer is {"items":[{file,line,level,text,rule}]} in the order of the files.
---@param name string
---@return string json
function M.run(name)
  local systems = require "tidemill.system"
  local system, findings = systems.load(name)
  if system then M.add(system, findings) end
  if findings.errors == 0 then systems.hold(name, system --[[@as tidemill.System]]) end
  local items = json.array {}
  for i, finding in ipairs(findings.items) do items[i] = finding end
  table.sort(items, by_place)
  return assert(json.encode { items = items })
end

return M
