-- The customer service desk: one flow from the first request to a solution the customer is content
-- with. Who speaks is in agents.lua, what happens in flow.lua, what is said offline in answers.lua.
local tm = require "tidemill"

return tm.system {
  name = "customer_service",
  description = "A customer service desk with a specialist behind it",
  agents = require "agents",
  flows = { require "flow" },
}
