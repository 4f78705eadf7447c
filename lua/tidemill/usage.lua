--- What executions of steps take of the machine, where performance_config.resource_monitoring asks
--- for it: CPU time, and the most memory that one had beyond what it began with. It is measured
--- from when the step begins, or its turn, to its record; what its branches take is their own.
local task = require "tidemill.task"
local usage = require "host.usage"

local M = {}

---@class tidemill.Used
---@field cpu_us integer
---@field memory_bytes integer

--- Runs while the task of its execution does.
---@class tidemill.Meter
---@field cpu_us integer of the slices that are over
---@field bytes integer it held at the end of the last one
---@field peak integer
---@field cpu_at integer where the present slice began
---@field bytes_at integer
---@field rests boolean
local Meter = {}
Meter.__index = Meter

function Meter:go_on()
  self.cpu_at, self.bytes_at = usage.read()
  self.rests = false
end

function Meter:rest()
  if self.rests then return end
  local cpu, bytes, peak = usage.read()
  self.cpu_us = self.cpu_us + cpu - self.cpu_at
  self.peak = math.max(self.peak, self.bytes + peak - self.bytes_at)
  self.bytes = self.bytes + bytes - self.bytes_at
  self.rests = true
end

---An execution begins in the task that runs.
---@param run tidemill.Run
function M.begin(run)
  run.meter = nil
  if run.real or not run.flow.inherited.monitors then return end
  run.meter = setmetatable({ cpu_us = 0, bytes = 0, peak = 0 }, Meter)
  run.meter:go_on()
  task.current().meter = run.meter
end

---What the execution has used until now, when its record is made; nil: nobody wants to know.
---@param run tidemill.Run
---@return tidemill.Used?
function M.take(run)
  local meter = run.meter
  if not meter then return nil end
  meter:rest()
  run.meter = nil
  return { cpu_us = meter.cpu_us, memory_bytes = meter.peak }
end

---Adds to what the conversation has used: the CPU time of all, the memory of the greediest.
---@param runtime table
---@param used tidemill.Used?
function M.add(runtime, used)
  if not used then return end
  local all = runtime.usage or { cpu_us = 0, memory_bytes = 0 }
  runtime.usage = { cpu_us = all.cpu_us + used.cpu_us,
    memory_bytes = math.max(all.memory_bytes, used.memory_bytes) }
end

return M
