--- The engine: one turn of one conversation, from what came in to exactly one end.
---
--- Steps run until one waits for the user, the flow ends, or a step has failed for good. Every
--- execution leaves a record; a failed attempt leaves no trace in state. The runtime part of the
--- record holds what must survive: counters, the attempt, the deadline, the start of this step.
local clock = require "host.clock"
local context = require "tidemill.context"
local crypto = require "host.crypto"
local draft = require "tidemill.draft"
local fault = require "tidemill.fault"
local input = require "tidemill.input"
local journal = require "host.journal"
local json = require "host.json"
local log = require "host.log"
local step_runner = require "tidemill.step"
local system = require "tidemill.system"
local task = require "tidemill.task"
local template = require "tidemill.template"
local transition = require "tidemill.transition"

local M = {}

local STEPS_PER_TURN = 1000
local BACKOFF_LONGEST_MS = 300000

---@class tidemill.Run
---@field id integer
---@field conversation_id string
---@field system tidemill.System
---@field flow tidemill.Flow
---@field state table
---@field state_text string? the state as JSON, when known
---@field snapshot string? the state before the present step, when a script may change it
---@field undo table<string, any> what the present step overwrote: json.null for nothing
---@field runtime table
---@field session { id: string, user_id: string?, metadata: table }
---@field config table
---@field input any what the user said in this turn
---@field is_start boolean
---@field begun boolean a begin row of this turn is stored
---@field calls table<string, any> recorded calls that were not asked for again yet
---@field ordinals table<string, integer> of this step's calls
---@field current tidemill.Step? that runs now
---@field seq integer of the present execution
---@field attempt integer
---@field started integer
---@field deadline integer? monotonic
---@field broken tidemill.Fault? ends the step even when a script caught it
---@field said table? what the present step's agent said
---@field steps table[]
---@field messages table[]
---@field output_limit integer?
---@field bytes integer of what the steps brought since the last row
---@field dropped boolean? nothing may happen in its name any more

local function present(value)
  if value ~= json.null then return value end
end

local function find_flow(turn)
  local found = system.loaded(turn.system)
  local flow = found and found.flows[turn.flow_id]
  if flow then return found, flow end
  error(fault.new("flow.not_found", ("the system '%s' has no flow '%s'")
    :format(turn.system, tostring(turn.flow_id)), { status = "not_found", turn = true }), 0)
end

--- What a flow seals, nobody else can write; what is not sealed, anybody could have written.
local function check_sealed(flow, turn)
  if not flow.seal or not turn.unsealed then return end
  error(fault.new("seal.plaintext", ("flow '%s' seals what it stores, and conversation %s was "
    .. "read from rows that are not sealed: somebody else wrote them, or sealing was turned on "
    .. "later; in that case workflow_persistence.general.accept_plaintext: true lets them be read")
    :format(flow.flow_id, turn.conversation_id), { status = "corrupt", turn = true }), 0)
end

local function new_run(id, turn)
  local found, flow = find_flow(turn)
  check_sealed(flow, turn)
  local runtime = turn.runtime
  runtime.step_seq, runtime.message_seq = runtime.step_seq or 0, runtime.message_seq or 0
  runtime.rollback = runtime.rollback or flow.inherited.rollback
  runtime.checkpoints = runtime.checkpoints or flow.inherited.checkpoints
  local run = {
    id = id, conversation_id = turn.conversation_id, system = found, flow = flow,
    state = turn.state, runtime = runtime, config = found.config, input = present(turn.input),
    is_start = turn.kind == "start" or runtime.turn == "start", begun = turn.kind == "resume",
    calls = turn.calls or {}, steps = json.array {}, messages = json.array {},
    output_limit = found.output_limit, bytes = 0, turn = turn,
  }
  if turn.kind == "start" then
    local given = run.input or {}
    runtime.user_id, runtime.metadata = present(given.user_id), present(given.metadata)
    run.state = json.restore(flow.variables_text)
  end
  if run.is_start then run.input = run.input and present(run.input.message) end
  run.session = { id = turn.session_id, user_id = runtime.user_id,
    metadata = runtime.metadata or {} }
  return run
end

local function fail_turn(id, err)
  local failure = fault.of(err)
  log.write("error", "a turn failed: " .. failure.message, { code = failure.code })
  journal.fail(id, { code = failure.code, message = failure.message, step_id = failure.step_id,
    status = failure.status or "script" })
end

--- A draft that cannot be written ends the turn with that error.
local function write(run, act, what)
  local ok, err = act(run.id, what)
  if not ok then fail_turn(run.id, err) end
end

---- ends ----

--- Listed as checkpoint: steps were completed, and enough time has passed since the last one.
local function is_checkpoint(run, now)
  local runtime, flow = run.runtime, run.flow
  local completed = runtime.completed or 0
  if not flow.auto_checkpoint or completed <= (runtime.checkpointed or 0) then return false end
  local due = runtime.checkpoint_at and runtime.checkpoint_at + flow.checkpoint_interval_ms
  if due and now < due then return false end
  runtime.checkpointed, runtime.checkpoint_at = completed, now
  return true
end

local function prompt_text(run, step)
  local asked = template.render(step.prompt, run)
  if step.input.type ~= "structured" then return asked, step.input.public end
  local public, question = input.shown(step.input, run.runtime.partial)
  if run.runtime.partial then return question or asked, public end
  return question and asked .. "\n" .. question or asked, public
end

--- Asks: commits the conversation as waiting. `hint` says why the answer before was refused.
local function commit_prompt(run, step, asked, public)
  local runtime = run.runtime
  local made = draft.commit(run, "waiting_input", step.step_id, runtime.expires_at or 0)
  made.checkpoint = is_checkpoint(run, clock.now())
  made.prompt = { step_id = step.step_id, text = asked, input_schema = public,
    attempt = runtime.attempt, hint = runtime.hint or json.null,
    expires_at = runtime.expires_at or json.null }
  write(run, journal.commit, made)
end

local function ask(run, step, asked, public)
  local runtime = run.runtime
  runtime.expires_at = step.timeout_ms > 0 and clock.now() + step.timeout_ms or nil
  local said = runtime.hint and runtime.hint .. "\n" .. asked or asked
  draft.message(run, "prompt", said, { step_id = step.step_id })
  commit_prompt(run, step, asked, public)
end

local WAITING = { "attempt", "asked", "expires_at", "hint", "partial" }

local function forget_wait(run)
  for _, name in ipairs(WAITING) do run.runtime[name] = nil end
end

local function finish(run, status, failure, step)
  forget_wait(run)
  local made = draft.commit(run, status, "", 0)
  if failure then
    made.error = { code = failure.code, message = failure.message, step_id = step.step_id }
  end
  write(run, journal.commit, made)
end

---- failures ----

--- Exponential, at most five minutes, with a jitter that is the same wherever it is computed.
local function backoff_ms(run, step)
  local drawn = tonumber(crypto.digest(run.conversation_id .. ":" .. run.seq, 8), 16) / (1 << 32)
  local ms = step.retry_delay_ms * 2.0 ^ math.min(run.attempt - 1, 30)
  return math.floor(math.min(ms * (1 + drawn / 4), BACKOFF_LONGEST_MS))
end

--- Where the script defines the step: not every failure has a line of its own.
local function place_of(step)
  return ("%s:%d"):format(step.source.file, step.source.line)
end

--- A limit may have been reached where no line of the script is known.
local function name_place(step, failure)
  failure.message = ("%s (in the step '%s', %s)"):format(failure.message, step.step_id,
    place_of(step))
end

local function report(run, step, failure)
  log.write("error", "a step failed: " .. failure.message, {
    conversation_id = run.conversation_id, step_id = step.step_id, code = failure.code,
    system = run.system.name, attempt = run.attempt, source = place_of(step),
    traceback = failure.traceback,
  })
end

local function suspend(run, step)
  run.runtime.attempt, run.runtime.started = run.attempt + 1, nil
  local made = draft.suspend(run, step.step_id, clock.now() + backoff_ms(run, step))
  write(run, journal.suspend, made)
end

--- Records the failed attempt. Where memory was short no handler ran, so the error may be a text;
--- the callers make it a fault. Returns the step of on_error, or nil when the turn has ended.
local function fail_step(run, step, failure, answered)
  transition.restore(run)
  if failure.turn then return fail_turn(run.id, failure) end
  report(run, step, failure)
  draft.step(run, step, { input = answered, error = { code = failure.code,
    message = failure.message, source = place_of(step), traceback = failure.traceback } })
  local again = failure.retryable ~= false and step.step_type ~= "user_input"
  if again and run.attempt <= step.max_retries then return suspend(run, step) end
  forget_wait(run)
  run.runtime.started = nil
  if step.on_error and not failure.fatal then return step.on_error end
  finish(run, "failed", failure, step)
end

---- steps ----

local function enter(run, step)
  local runtime = run.runtime
  run.current, run.seq, run.attempt = step, runtime.step_seq + 1, runtime.attempt or 1
  run.started, runtime.started = runtime.started or clock.now(), nil
  run.snapshot, run.broken, run.said = nil, nil, nil
  run.undo, run.ordinals, run.deadline = {}, {}, nil
end

local FEEDBACK_CHARACTERS = 1000

--- The runtime part stays small; the whole answer is in the transcript.
local function feedback_of(output)
  return type(output) == "string" and fault.printable(output, FEEDBACK_CHARACTERS) or output
end

local function complete(run, step, pass, answered)
  local output = pass.raw
  if output == nil then output = pass.output end
  local said = run.said
  local reply = said and draft.message(run, "agent", said.text,
    { step_id = step.step_id, agent = said.agent, provider = said.provider })
  if reply then output = nil end -- a row does not hold the text twice
  if step.metadata.satisfaction_check then run.runtime.feedback = feedback_of(output) end
  draft.step(run, step, { input = answered, output = output, reply = reply })
  forget_wait(run)
  run.current = nil
end

local function begin_prompt(run, step)
  step_runner.check_context(run, step)
  return prompt_text(run, step)
end

--- Returns the next step, or nil when the turn has ended.
local function visit(run, step)
  enter(run, step)
  if step.step_type == "user_input" then
    local ok, asked, public = xpcall(begin_prompt, fault.caught, run, step)
    if not ok then return fail_step(run, step, fault.of(asked)) end
    run.runtime.attempt, run.runtime.asked = 1, run.started
    return ask(run, step, asked, public)
  end
  if step.timeout_ms > 0 then run.deadline = clock.monotonic() + step.timeout_ms end
  local ok, next_step, pass = xpcall(step_runner.run, fault.caught, run, step)
  if not ok then
    local failure = run.broken or fault.of(next_step)
    if failure.code == "script.memory" then name_place(step, failure) end
    return fail_step(run, step, failure)
  end
  complete(run, step, pass)
  return next_step
end

local function endless(run, step)
  enter(run, step)
  local names, seen = {}, {}
  for i = #run.steps, math.max(1, #run.steps - 200), -1 do
    local id = run.steps[i].step_id
    if not seen[id] then names[#names + 1] = id end
    seen[id] = true
  end
  table.sort(names)
  return fail_step(run, step, fault.new("flow.endless",
    ("%d steps ran in one turn without waiting for anybody, in the loop: %s; let one of them ask "
      .. "or lead out"):format(STEPS_PER_TURN, table.concat(names, ", ")),
    { fatal = true, retryable = false }))
end

local function go(run, step_id)
  local runtime = run.runtime
  while step_id do
    if step_id == "end" then return finish(run, "completed") end
    local step = run.flow.steps[step_id]
    runtime.hops = (runtime.hops or 0) + 1
    if runtime.hops > STEPS_PER_TURN then
      step_id = endless(run, step)
    else
      step_id = visit(run, step)
    end
  end
end

---- what comes in ----

local kinds = {}

function kinds.start(run)
  if type(run.input) == "string" and run.input ~= "" then
    draft.message(run, "user", run.input, {})
  end
  return go(run, run.flow.start_step)
end

local function said_by_user(value)
  if type(value) == "table" then return json.encode(value) or "" end
  return value == nil and "" or template.display(value)
end

local function expire(run, step)
  enter(run, step)
  local failure = fault.new("interaction.timeout", ("nobody answered '%s' within %d seconds; start "
    .. "anew, or raise its timeout")
    :format(step.step_id, step.timeout_ms // 1000))
  draft.step(run, step, { error = { code = failure.code, message = failure.message } })
  return finish(run, "expired")
end

local function waiting_step(run)
  local turn = run.turn
  local step = run.flow.steps[turn.step]
  if turn.status == "waiting_input" and step and step.step_type == "user_input" then return step end
  error(fault.new("conversation.not_waiting", ("the conversation is %s and waits for no "
    .. "answer; read what it does, or start another")
    :format(tostring(turn.status)), { status = "conflict", turn = true }), 0)
end

local function is_expired(run)
  local expires_at = run.runtime.expires_at
  return expires_at ~= nil and run.turn.now >= expires_at
end

--- Applies the answer: the next step, or nothing and what is still to be asked.
local function apply_answer(run, step)
  local runtime = run.runtime
  local accepted, hint = input.accept(step.input, run.input, runtime.partial, run.attempt,
    function() return context.reader(run, step, "a validate function") end)
  if not accepted or accepted.partial then
    runtime.hint = hint
    runtime.attempt = hint and run.attempt + 1 or 1
    if accepted then runtime.partial = accepted.partial end
    return nil, prompt_text(run, step)
  end
  local pass = { output = accepted.value, outcome = accepted.outcome }
  return transition.settle(run, step, pass), pass
end

function kinds.message(run)
  local step = waiting_step(run)
  if is_expired(run) then return expire(run, step) end
  local runtime = run.runtime
  runtime.started = runtime.asked
  enter(run, step)
  draft.message(run, "user", said_by_user(run.input), { step_id = step.step_id })
  local ok, next_step, pass, public = xpcall(apply_answer, fault.caught, run, step)
  if not ok then return go(run, fail_step(run, step, fault.of(next_step), run.input)) end
  if not next_step then return ask(run, step, pass, public) end
  complete(run, step, pass, run.input)
  return go(run, next_step)
end

function kinds.resume(run)
  return go(run, run.turn.step)
end

--- A deadline has passed, or was thought to: a prompt expires, or goes on waiting.
function kinds.wake(run)
  local step = waiting_step(run)
  if is_expired(run) then return expire(run, step) end
  enter(run, step)
  return commit_prompt(run, step, prompt_text(run, step))
end

--- A limit stopped the coroutine: the step that ran has failed. Where the turn goes on from there,
--- that is work of its own, with a budget of its own, and others go first.
local function stopped(run, err)
  local step = run.current
  if not step then return fail_turn(run.id, err) end
  local failure = fault.of(err)
  failure.retryable = false
  name_place(step, failure)
  local next_step = fail_step(run, step, failure)
  if next_step then task.pause() end
  return go(run, next_step)
end

---@class tidemill.Program
---@field run fun() in a coroutine of its own
---@field crashed fun(err: any) it raised: a fault of the runtime, or of what came in
---@field stopped fun(err: any) a limit stopped it; in a new coroutine
---@field dropped fun() its coroutine is not resumed any more
---@field now fun(): integer? when the present step began

---@param id integer
---@param turn table see docs/protocol.md
---@return tidemill.Program
function M.prepare(id, turn)
  local run
  return {
    run = function()
      run = new_run(id, turn)
      return kinds[turn.kind](run)
    end,
    crashed = function(err) fail_turn(id, err) end,
    stopped = function(err)
      if not run then return fail_turn(id, err) end
      run.dropped = nil
      return stopped(run, err)
    end,
    now = function() return run and run.started or turn.now end,
    dropped = function()
      if run then run.dropped = true end
    end,
  }
end

return M
