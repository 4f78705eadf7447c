--- What a step does, one function per step_type. A user_input is not here: it waits for an answer,
--- which is the turn's business.
local agents = require "tidemill.agent"
local clock = require "host.clock"
local context = require "tidemill.context"
local draft = require "tidemill.draft"
local fault = require "tidemill.fault"
local json = require "host.json"
local outside = require "tidemill.outside"
local review = require "tidemill.review"
local template = require "tidemill.template"
local transcript = require "tidemill.transcript"
local transition = require "tidemill.transition"
local view = require "tidemill.view"

local M = {}

local executors = {}

function executors.agent_response(run, step)
  if step.metadata.conversation_summary then run.transcript = transcript.read(run) end
  local reply, agent = agents.respond(run, step)
  if step.review then review.run(run, step, reply.text) end
  run.said = { text = reply.text, agent = agent.name, provider = agent.provider }
  draft.reserve(run, draft.text_bytes(reply.text))
  return { output = reply.text, outcome = reply.outcome }
end

--- nil and an error is how a call says that it failed, so `return ctx:http{…}` fails the step.
---@param run tidemill.Run
---@param step tidemill.Step
---@param value any what a function of the step returned
---@param err any
---@return tidemill.Pass
local function checked_output(run, step, value, err)
  if value == nil then
    if err ~= nil then error(fault.of(err), 0) end
    return {}
  end
  value = view.opened(value, run.reads)
  local encoded, problem = json.encode(value)
  if not encoded then
    fault.stop("step.output", (step.merge and "merge" or "run") .. " returned what cannot be kept: "
      .. problem.message:gsub("^value", "output"))
  end
  if run.output_limit and #encoded > run.output_limit then
    fault.stop("step.too_large", ("the step '%s' (%s:%d) returned %d bytes, and %d are allowed; "
      .. "return less, or raise limits.output"):format(step.step_id, step.source.file,
      step.source.line, #encoded, run.output_limit))
  end
  draft.reserve(run, #encoded)
  return { output = value, raw = json.raw(encoded) }
end

M.checked_output = checked_output

function executors.action(run, step)
  local ctx <close> = context.writer(run, step)
  local value, err = step.run(ctx)
  context.keep(run, ctx)
  return checked_output(run, step, value, err)
end

function executors.decision(run, step)
  if not step.classify then return {} end
  local reply = agents.respond(run, step)
  return { outcome = reply.outcome }
end

local function check_context(run, step)
  local missing = {}
  for i, path in ipairs(step.required_paths) do
    local value = template.lookup(path, run)
    if value == nil or value == json.null then missing[#missing + 1] = step.required_context[i] end
  end
  if #missing == 0 then return end
  fault.stop("step.missing_context", ("the step '%s' needs %s in state "
    .. "(metadata.required_context); let an earlier step save it")
    :format(step.step_id, table.concat(missing, ", ")))
end
M.check_context = check_context

---Runs a step that waits for nobody.
---@param run tidemill.Run
---@param step tidemill.Step
---@return string next_step
---@return tidemill.Pass pass
function M.run(run, step)
  check_context(run, step)
  local pass = executors[step.step_type](run, step)
  local next_step = transition.settle(run, step, pass)
  if run.broken then error(run.broken, 0) end
  if run.deadline and clock.monotonic() > run.deadline then error(outside.step_timeout(run), 0) end
  return next_step, pass
end

return M
