--- Which steps can follow which: reachability, cycles, and the way to a step as a witness.
local ladder = require "tidemill.ladder"

local M = {}

---Where a step can go when it has succeeded, "end" and targets that do not exist included: its
---branches and their default (of one that is a flow, what follows it); of a condition without
---branches, whose outcome is the step itself, all of next_steps; else the first of them.
---@param step tidemill.Step
---@return string[] sorted
function M.targets(step)
  local targets = {}
  local function add(target)
    targets[#targets + 1] = target and target:find "^flow:" and step.onward or target
  end
  for _, target in pairs(step.branches or {}) do add(target) end
  add(step.default_branch)
  if not step.branches and step.condition ~= nil then
    table.move(step.next_steps, 1, #step.next_steps, #targets + 1, targets)
  elseif not step.branches then
    targets[#targets + 1] = step.next_steps[1] or "end"
  end
  table.sort(targets)
  return targets
end

--- Adds a target that exists; "end" is kept apart.
local function add(found, flow, target)
  if target == "end" then
    found.ends = true
  elseif target and flow.steps[target] and not found.seen[target] then
    found.seen[target] = true
    found.list[#found.list + 1] = target
  end
end

---The steps that can follow, and whether the flow can be complete after this one.
---@param flow tidemill.Flow
---@param step tidemill.Step
---@return string[] followers
---@return boolean ends
function M.followers(flow, step)
  local found = { list = {}, seen = {}, ends = false }
  if flow.end_steps[step.step_id] then return found.list, true end
  for _, target in ipairs(M.targets(step)) do add(found, flow, target) end
  add(found, flow, step.on_error)
  for _, target in ipairs(ladder.targets(step.no_match)) do add(found, flow, target) end
  for _, target in ipairs(ladder.targets(step.no_input)) do add(found, flow, target) end
  return found.list, found.ends
end

---Everything that can be reached from `from`, itself only if a way leads back to it.
---@param flow tidemill.Flow
---@param from string
---@param stop (fun(id: string): boolean)? steps beyond which nothing is looked at
---@return table<string, string> came_from the step before, by step
---@return boolean ends whether an end is among it
function M.reach(flow, from, stop)
  local came_from, queue, ends = {}, { from }, false
  local at = 1
  while queue[at] do
    local id = queue[at]
    at = at + 1
    if not stop or not stop(id) then
      local followers, is_end = M.followers(flow, flow.steps[id])
      ends = ends or is_end
      for _, follower in ipairs(followers) do
        if not came_from[follower] then
          came_from[follower] = id
          queue[#queue + 1] = follower
        end
      end
    end
  end
  return came_from, ends
end

---@param flow tidemill.Flow
---@param id string
---@return boolean
function M.on_cycle(flow, id)
  return M.reach(flow, id)[id] ~= nil
end

---A way from the start to `target` past no step for which `stop` holds, as "a, b, c"; nil when
---there is none.
---@param flow tidemill.Flow
---@param target string
---@param stop fun(id: string): boolean
---@return string?
function M.way(flow, target, stop)
  local start = flow.start_step
  local came_from = start ~= target and M.reach(flow, start, stop) or {}
  if start ~= target and not came_from[target] then return nil end
  local ids = { target }
  while ids[1] ~= start do table.insert(ids, 1, came_from[ids[1]]) end
  return table.concat(ids, ", ")
end

return M
