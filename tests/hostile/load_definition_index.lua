-- An orchestrator that loops when it is looked at.
-- as: init
-- expect: refused script.invalid
local tm = require "tidemill"
local trap = setmetatable({}, { __index = function() while true do end end,
  __len = function() while true do end end, __pairs = function() while true do end end })
return tm.system { agents = {}, flows = { trap }, orchestrator = trap, config = trap }
