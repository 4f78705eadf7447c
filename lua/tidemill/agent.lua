--- Agents: the interface respond(ctx, request) → a text or { text = …, outcome = … }, and who is
--- behind it: a provider for an AssistantAgent, a script's own function for a custom agent.
local context = require "tidemill.context"
local fault = require "tidemill.fault"
local fields = require "tidemill.fields"
local offline = require "tidemill.provider.offline"
local origin = require "tidemill.origin"
local schema = require "tidemill.schema"
local template = require "tidemill.template"
local text = require "host.text"
local view = require "tidemill.view"

local M = {}

local PROVIDERS = { offline = offline }

local function compile_assistant(name, given, config, report)
  if not schema.check(fields.assistant, given, "AssistantAgent", report) then return nil end
  local provider = given.provider or config.llm and config.llm.provider or "offline"
  if not PROVIDERS[provider] then
    report(("the provider '%s' (llm.provider of agent_config.yaml) is not supported yet; "
      .. "only offline is"):format(provider), "unsupported")
    return nil
  end
  return { name = name, user_id = given.user_id, type = "assistant", provider = provider,
    system_message = given.system_message }
end

local function compile_custom(name, given, report)
  local id = given.user_id
  if id ~= nil and (type(id) ~= "string" or not text.valid(id)) then
    report("custom agent: 'user_id' must be a text", "fields")
    return nil
  end
  return { name = name, user_id = given.user_id or name, type = "custom", provider = "custom",
    respond = given.respond }
end

---Makes an agent that was given as a function, if it is not made yet; raises.
---@param agent tidemill.Agent
function M.make(agent)
  if agent.made then return end
  local made, err = agent.maker()
  if made == nil and err ~= nil then error(fault.of(err), 0) end
  if type(made) ~= "table" or type(made.respond) ~= "function" then
    fault.stop("agent.invalid", ("the function that makes the agent '%s' must return a table with "
      .. "a function respond(ctx, request)"):format(agent.name))
  end
  agent.made = made
end

local function compile_maker(name, maker)
  local agent = { name = name, user_id = name, type = "custom", provider = "custom",
    maker = maker }
  function agent.respond(ctx, request)
    M.make(agent)
    return agent.made.respond(ctx, request)
  end
  return agent
end

---Compiles one of a system's agents; nil when it is unusable.
---@param name string
---@param given any
---@param config table what host.config gives
---@param source tidemill.Source of the system
---@param findings tidemill.Findings
---@return tidemill.Agent?
function M.compile(name, given, config, source, findings)
  source = origin.source(given, source)
  local report = findings:reporter(source, ("agent '%s'"):format(name))
  local kind, agent = origin.kind(given), nil
  if kind == "DatabaseAgent" then
    report("DatabaseAgent is not supported yet; use a custom agent (a table with respond) or an "
      .. "action step with ctx:http", "unsupported")
  elseif kind == "AssistantAgent" then
    agent = compile_assistant(name, given, config, report)
  elseif type(given) == "table" and type(given.respond) == "function" then
    agent = compile_custom(name, given, report)
  elseif type(given) == "function" then
    agent = compile_maker(name, given)
  else
    report("must be an AssistantAgent { … }, a table with a function respond(ctx, request), or a "
      .. "function that makes such a table", "agents")
  end
  if agent then agent.source = source end
  return agent
end

local function check_text(step, said, limit)
  if type(said) ~= "string" then
    fault.stop("agent.reply", "respond must return a text, or { text = …, outcome = … }, not a "
      .. type(said))
  end
  if not text.valid(said) then
    fault.stop("agent.reply", "respond returned text that is not valid UTF-8")
  end
  if limit and #said > limit then
    fault.stop("agent.too_large", ("the reply of the step '%s' (%s:%d) has %d bytes, and %d are "
      .. "allowed; say less, or raise limits.output"):format(step.step_id, step.source.file,
      step.source.line, #said, limit))
  end
end

--- A custom agent's answer in the shape of a reply.
local function checked_reply(step, reply, err, limit)
  if reply == nil and err ~= nil then error(fault.of(err), 0) end
  reply = type(reply) == "table" and { text = reply.text, outcome = reply.outcome }
    or { text = reply }
  if step.step_type == "agent_response" then check_text(step, reply.text, limit) end
  if reply.outcome ~= nil and type(reply.outcome) ~= "string" then
    fault.stop("agent.outcome", "the outcome must be a text")
  end
  return reply
end

local function outcomes_of(step)
  if not step.classify then return nil end
  return schema.sorted_keys(step.branches)
end

local function request_of(run, step)
  return { prompt = step.prompt and template.render(step.prompt, run) or "",
    input = context.input_of(run), transcript = run.transcript and view.copy(run.transcript) }
end

local function respond_custom(run, step, agent)
  local ctx <close> = context.writer(run, step)
  local request, rejected = request_of(run, step), run.runtime.rejected
  request.outcomes, request.rejected = outcomes_of(step), rejected and view.copy(rejected)
  local reply, err = agent.respond(ctx, request)
  context.keep(run, ctx)
  return checked_reply(step, reply, err, run.output_limit)
end

---Lets a step's agent respond.
---@param run tidemill.Run
---@param step tidemill.Step
---@return tm.Reply reply
---@return tidemill.Agent agent
function M.respond(run, step)
  local agent = run.system.agents[step.agent]
  if agent.respond then return respond_custom(run, step, agent), agent end
  local reply = PROVIDERS[agent.provider].respond(run, step, agent)
  if reply.text then check_text(step, reply.text, run.output_limit) end
  return reply, agent
end

---Lets the agent that reviews a step say what it thinks of a reply. It sees what the step's own
---agent has seen, and writes nothing.
---@param run tidemill.Run
---@param step tidemill.Step
---@param said string the reply
---@return any answer
function M.review(run, step, said)
  local agent = run.system.agents[step.review.agent]
  if not agent.respond then return PROVIDERS[agent.provider].review(run, step, said) end
  local ctx <close> = context.reviewer(run, step)
  local request = request_of(run, step)
  request.reply, request.outcomes = said, { "pass", "reject" }
  local answer, err = agent.respond(ctx, request)
  if answer == nil and err ~= nil then error(fault.of(err), 0) end
  return answer
end

return M
