--- What a system says about tenants: whose it is, and whether they have to be kept apart. A host
--- never does less than the stricter of script and configuration.
local M = {}

local NOT_ISOLATED = "%s demands what this host does not do: its tenants share one store, and Lua "
  .. "states; set tenants.isolation: true in agent_config.yaml (before there are conversations)"

local function section(orchestrator, name)
  local given = orchestrator[name]
  return type(given) == "table" and given or {}
end

local function check_isolation(orchestrator, isolated, report)
  if isolated then return end
  if orchestrator.tenant_isolation == true then
    report(NOT_ISOLATED:format "orchestrator: 'tenant_isolation'", "fields")
  end
  if section(orchestrator, "persistence_config").tenant_isolation == true then
    report(NOT_ISOLATED:format "orchestrator.persistence_config: 'tenant_isolation'", "fields")
  end
end

local TENANT_MOST = 64

--- As the host takes the name of a tenant from whoever asks (host/requests.c).
local function is_tenant(id)
  return #id > 0 and #id <= TENANT_MOST and not id:find "[\0-\31]" and utf8.len(id) ~= nil
end

local function check_tenant(orchestrator, report)
  local own, of_sessions = orchestrator.tenant_id, section(orchestrator, "session_config").tenant_id
  local fine = true
  local function look(id, where)
    if type(id) ~= "string" or is_tenant(id) then return end
    fine = false
    report(("%s: 'tenant_id' must be a tenant: 1 to %d bytes of UTF-8, without control characters")
      :format(where, TENANT_MOST), "fields")
  end
  look(own, "orchestrator")
  look(of_sessions, "orchestrator.session_config")
  if fine and own ~= nil and of_sessions ~= nil and own ~= of_sessions then
    report(("orchestrator: 'tenant_id' is '%s', but that of session_config is '%s'; a system "
      .. "belongs to one tenant: give it once"):format(tostring(own), tostring(of_sessions)),
      "fields")
  end
end

---The tenant that the system belongs to; nil: to all of them.
---@param orchestrator table checked
---@return string?
function M.owner(orchestrator)
  return orchestrator.tenant_id or section(orchestrator, "session_config").tenant_id
end

---Reports what this host cannot do for the system.
---@param orchestrator table as given
---@param config host.Config
---@param report fun(text: string, rule: string)
function M.check(orchestrator, config, report)
  check_isolation(orchestrator, config.isolates, report)
  check_tenant(orchestrator, report)
end

return M
