--- APPROVAL_WORKFLOW: a request, the decisions of roles on it one after the other, and what is done
--- when all of them approve; nothing of that can be reached past them.
local builder = require "tidemill.pattern.builder"
local ladder = require "tidemill.ladder"
local paths = require "tidemill.check.paths"

local M = {}

M.fields = builder.fields {
  request = { type = "list" }, approvals = { type = "list", required = true },
  revise = { type = "boolean" }, run = { type = "function" }, undo = { type = "function" },
  irreversible = { type = "boolean" }, agent = { type = "any" }, approved = { type = "string" },
  rejected = { type = "string" },
}

--- One decision; the fields of an approval step.
M.approval_fields = {
  role = { type = "string", required = true }, prompt = { type = "string", required = true },
  timeout = { type = "duration" }, default = { type = "string" },
}

--- What the steps behind the request keep.
local function taken_by(given)
  local taken = { result = given.run and true }
  for i = 1, #given.approvals do taken[("approval_%d"):format(i)] = true end
  return taken
end

local function is_sound(given, flow)
  local function wrong(text) flow.report("approval_workflow: " .. text, "fields") end
  if given.request then flow:check_questions(given.request, "request", taken_by(given)) end
  for i, approval in ipairs(given.approvals) do
    flow:check(M.approval_fields, approval, ("approvals[%d]"):format(i))
  end
  if #given.approvals == 0 then wrong "'approvals' must name at least one role" end
  if given.revise and not given.request then
    wrong "'revise' needs a 'request' that can be asked for again"
  end
  if (given.approved or given.rejected) and given.agent == nil then
    wrong "'agent' is missing: who says 'approved' and 'rejected'"
  end
  if not given.run and not given.approved and not given.rejected and not given.revise then
    wrong "nothing hangs on the decision; give 'run', 'approved' or 'rejected'"
  end
  if not given.run and (given.undo or given.irreversible ~= nil) then
    wrong "'undo' and 'irreversible' belong to 'run', which is missing"
  end
  return #flow.problems == 0
end

local function add_request(given, flow)
  local questions = given.request or {}
  for i, question in ipairs(questions) do
    local behind = questions[i + 1]
    flow:ask("ask_" .. question.name, question,
      { next_steps = { behind and "ask_" .. behind.name or "approve_1" } })
  end
end

local function add_approvals(given, flow, approved, rejected)
  for i, approval in ipairs(given.approvals) do
    local following = given.approvals[i + 1] and ("approve_%d"):format(i + 1) or approved
    flow:step { step_id = ("approve_%d"):format(i), step_type = "approval", role = approval.role,
      prompt = approval.prompt, timeout = approval.timeout, default = approval.default,
      save_as = ("approval_%d"):format(i), next_steps = { following, rejected },
      conditional_logic = { approved = following, rejected = rejected } }
  end
end

---@param given table
---@param flow tidemill.Builder
function M.build(given, flow)
  if not is_sound(given, flow) then return end
  local told = given.approved and "tell_approved" or "end"
  local again = given.revise and "ask_" .. given.request[1].name or "end"
  add_request(given, flow)
  add_approvals(given, flow, given.run and "carry_out" or told,
    given.rejected and "tell_rejected" or again)
  if given.run then
    flow:step { step_id = "carry_out", step_type = "action", run = given.run, undo = given.undo,
      irreversible = given.irreversible, save_as = "result", next_steps = { told } }
  end
  if given.approved then
    flow:say("tell_approved", { agent = given.agent, response = given.approved },
      { next_steps = { "end" } })
  end
  if given.rejected then
    flow:say("tell_rejected", { agent = given.agent, response = given.rejected },
      { next_steps = { again } })
  end
end

--- Does the step go to the target itself, which is a flow?
local function goes_to(step, target)
  for _, one in pairs(step.branches or {}) do
    if one == target then return true end
  end
  return step.default_branch == target or step.flow and "flow:" .. step.flow == target
end

--- Can `target`, a step or "flow:…", be reached from the step `from` without the approval?
local function goes_past(flow, from, target, approval)
  if not flow.steps[from] or from == approval then return false end
  local reached = paths.reach(flow, from, function(id) return id == approval end)
  if from == target or reached[target] then return true end
  if goes_to(flow.steps[from], target) then return true end
  for id in pairs(reached) do
    if id ~= approval and goes_to(flow.steps[id], target) then return true end
  end
  return false
end

--- Where the conversation can go instead of `approved`: from the start, from behind a rejection (of
--- a flow, what follows it), and where the approval itself fails or nobody comes.
local function other_ways(flow, step, rejected)
  local ways = ladder.targets(step.no_input)
  ways[#ways + 1] = flow.start_step
  ways[#ways + 1] = step.on_error
  ways[#ways + 1] = rejected and (rejected:find "^flow:" and step.onward or rejected)
  return ways
end

local function check_gate(flow, step, report)
  local branches = step.branches or {}
  local approved = branches.approved or step.default_branch
  local rejected = branches.rejected or step.default_branch
  if not approved or approved == rejected then
    return report(step, "leads to the same whether approved or rejected; let conditional_logic "
      .. "tell approved from rejected")
  end
  if approved == "end" then return end
  for _, from in ipairs(other_ways(flow, step, rejected)) do
    if goes_past(flow, from, approved, step.step_id) then
      return report(step, ("can be gone past: a way leads to '%s' without its approval")
        :format(approved))
    end
  end
end

---@param flow tidemill.Flow
---@param report fun(step: tidemill.Step?, text: string)
function M.check(flow, report)
  local approvals = 0
  for _, id in ipairs(flow.step_order) do
    local step = flow.steps[id]
    if step.step_type == "approval" and not flow.end_steps[id] then
      approvals = approvals + 1
      check_gate(flow, step, report)
    end
  end
  if approvals == 0 then
    report(nil, "there is no step of the type 'approval' that something follows")
  end
end

return M
