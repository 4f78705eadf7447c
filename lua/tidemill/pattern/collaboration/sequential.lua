--- One after the other: each sees what those before have said, under their names.
local M = { needs = {} }

function M.first(given)
  return given.participants[1].name
end

---@param given table
---@param flow tidemill.Builder
---@param onward string
function M.build(given, flow, onward)
  for i, one in ipairs(given.participants) do
    local behind = given.participants[i + 1]
    flow:say(one.name, one,
      { save_as = one.name, next_steps = { behind and behind.name or onward } })
  end
end

return M
