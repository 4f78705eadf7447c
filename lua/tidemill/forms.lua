--- Forms that were left half filled (metadata.allows_partial_completion): a structured input that
--- its user left for another step goes on from there when it is asked again.
local M = {}

local function key_of(run, step)
  return run.flow.flow_id .. "/" .. step.step_id
end

---@param run tidemill.Run
---@param step tidemill.Step whose prompt is left
function M.keep(run, step)
  local partial = step.input.by_and_by and run.runtime.wait.partial
  if not partial then return end
  local forms = run.runtime.forms or {}
  forms[key_of(run, step)], run.runtime.forms = partial, forms
end

---@param run tidemill.Run
---@param step tidemill.Step that asks
---@return table? partial
function M.take(run, step)
  local forms, key = run.runtime.forms or {}, key_of(run, step)
  local partial = forms[key]
  forms[key] = nil
  if not next(forms) then run.runtime.forms = nil end
  return partial
end

return M
