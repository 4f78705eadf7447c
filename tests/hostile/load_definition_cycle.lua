-- A definition that contains itself.
-- as: init
-- expect: refused script.invalid
local tm = require "tidemill"
local t = { flow_id = "attack", start_step = "a", pattern = "step_by_step_process" }
t.steps, t.settings, t.variables, t.metadata = { t }, t, t, t
return tm.system { agents = { t = t }, flows = { t, t }, config = t, orchestrator = t }
