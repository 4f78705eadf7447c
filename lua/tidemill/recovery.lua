--- What becomes of a conversation when the attempts of a step are used up and no on_error leads on:
--- what its user is told (fallback_responses), and whether it waits at the step, for its user
--- (auto_recovery) or for an operator (resume_on_failure), instead of ending. Where a correction
--- has left effects behind the step that nobody took back, going on would have them a second time.
local clock = require "host.clock"
local deadlines = require "tidemill.deadlines"
local draft = require "tidemill.draft"
local json = require "host.json"
local ladder = require "tidemill.ladder"

local M = {}

local PROMPT = "That did not work. Send any message to try again."

---- the fallback reply ----

local TIMEOUTS = { ["step.timeout"] = true, ["http.timeout"] = true }

local NETWORK = {
  ["http.busy"] = true, ["http.connect"] = true, ["http.failed"] = true, ["http.resolve"] = true,
  ["http.timeout"] = true, ["http.tls"] = true,
}

--- The steps that do something themselves; only of these an attempt is the user's affair.
local RUNS = { agent_response = true, decision = true, action = true }

--- An agent's own names come first; what failed without an agent can only be the network.
local function fallback_of(run, step, failure)
  local said = run.flow.inherited.fallback_responses
  if step.agent and TIMEOUTS[failure.code] and said.agent_timeout then return said.agent_timeout end
  if NETWORK[failure.code] and said.network_error then return said.network_error end
  return step.agent and said.agent_error or nil
end

--- Who above the step takes care of its failure: the flow that was interrupted, or the on_error of
--- a step that went to this flow.
local function caught_by(run, failure)
  local frames = run.runtime.frames or {}
  for i = #frames, 1, -1 do
    local frame = frames[i]
    if frame.why == "digression" then return "digression" end
    local below = frame.why == "subflow" and run.system.flows[frame.flow].steps[frame.step]
    if below and below.on_error and not failure.fatal then return "on_error" end
  end
end

local function tell(run, step, failure)
  local said = RUNS[step.step_type] and fallback_of(run, step, failure)
  if not said then return end
  draft.message(run, "agent", said,
    { step_id = step.step_id, agent = step.agent, provider = "fallback" })
end

---- waiting at the step ----

--- While the conversation waits at a step that has failed; in the runtime part.
---@class tidemill.FailedWait
---@field failed true
---@field asked integer since when
---@field attempt integer that was the last
---@field once table<string, string>? what the step's ctx:once has got
---@field input any what had come in; for an operator, who brings nothing
---@field hint string? why a command was refused
---@field expires_at integer? when the user's silence ends the conversation

local function failed_wait(run)
  local wait = { failed = true, asked = clock.now(), attempt = run.attempt,
    once = run.runtime.once }
  run.runtime.wait = wait
  return wait
end

---What leaves the prompt when its user stays silent: the last rung of the flow's own ladder, else
---its interaction_timeout. What a ladder says before is about a question, and there is none.
---@param run tidemill.Run
---@return tidemill.Rung? nil: it waits for ever
function M.silence(run)
  local rungs = run.flow.ladders.no_input
    or ladder.of_timeout(run.flow.inherited.interaction_timeout_ms)
  local last = rungs[#rungs]
  return last and not last.say and last or nil
end

local function wait_for_user(run, step)
  local silence, wait = M.silence(run), failed_wait(run)
  wait.expires_at = silence and wait.asked + silence.after_ms
  deadlines.set(wait, "silence", wait.expires_at)
  draft.message(run, "prompt", PROMPT, { step_id = step.step_id })
  return "waiting_input"
end

local function wait_for_operator(run)
  local wait = failed_wait(run)
  wait.input = run.input
  run.runtime.paused = { status = "failed", since = wait.asked }
  return "paused"
end

---Lets the step run again: its attempts are counted on, and as many as it may have are left.
---@param run tidemill.Run
---@param step tidemill.Step
---@return string next_step
function M.again(run, step)
  local runtime, wait = run.runtime, run.runtime.wait
  runtime.attempt, runtime.tried, runtime.once = wait.attempt + 1, wait.attempt, wait.once
  runtime.wait = nil
  return step.step_id
end

---What is asked while the conversation waits for its user.
---@param run tidemill.Run
---@param step tidemill.Step
---@return table prompt
function M.prompt(run, step)
  local wait = run.runtime.wait
  return { step_id = step.step_id, text = PROMPT, input_schema = { type = "text" }, attempt = 1,
    hint = wait.hint or json.null, expires_at = wait.expires_at or json.null }
end

---Tells the user, and makes the conversation wait where it should.
---@param run tidemill.Run
---@param step tidemill.Step
---@param failure tidemill.Fault
---@return string? status nil: it does not wait
function M.begin(run, step, failure)
  local caught = caught_by(run, failure)
  if caught ~= "on_error" then tell(run, step, failure) end
  if caught or run.keeps then return nil end
  if run.flow.inherited.auto_recovery and not failure.fatal then
    return wait_for_user(run, step)
  end
  if run.root.inherited.resume_on_failure then return wait_for_operator(run) end
end

return M
