---@meta tidemill
--- What a script may write and call: `local tm = require "tidemill"`. Every name here works; what
--- the guide names beyond it is refused at load as "not supported yet", and an unknown name is an
--- error that suggests the nearest known one. Durations are seconds, or texts such as "30m" (ms, s,
--- m, h, d).
-- luacheck: ignore 212 241
local tm = {}

---@alias tm.Duration number|string

---@class tm.System
---@field name? string the folder's name; a system is named by its folder
---@field description? string
---@field agents table<string, tm.Agent>
---@field flows tm.Flow[]
---@field orchestrator? tm.Orchestrator
--- plain values; scripts see it as ctx.config, templates as {name} or {config.name}
---@field config? table

---What init.lua returns.
---@param system tm.System
---@return tm.System
function tm.system(system) end

-- Agents

--- An agent of a model. Without a model (`offline`) it says what a step's `response` says, and
--- chooses by the step's `outcome`. A step without `response` is then answered by
--- "[offline] NAME has no response for the step 'STEP'.": its prompt is written for a model and is
--- never shown to users. The prompt is rendered all the same, so that its mistakes show.
---@class tm.AssistantAgent
---@field user_id string
---@field system_message? string
---@field provider? "offline"

--- An agent of your own: any table with `respond`, and whatever else it needs.
---@class tm.CustomAgent
---@field user_id? string its name in `agents` when absent
--- returns its text, or { text = …, outcome = … }, or nil and an error, which fails the step
---@field respond fun(ctx: tm.Context, request: tm.Request): (string|tm.Reply|nil), any

---@alias tm.Agent tm.AssistantAgent|tm.CustomAgent

---@class tm.Request what an agent is asked
---@field prompt string the step's prompt, rendered
---@field input any what the user said in this turn
---@field outcomes string[]? with classify: the outcomes to choose from

---@class tm.Reply
---@field text string?
---@field outcome string? with classify: the outcome it chose

---@overload fun(agent: tm.AssistantAgent): tm.AssistantAgent
---@class tm.AssistantAgentConstructor
tm.AssistantAgent = {}

---The same as AssistantAgent { … }.
---@param agent tm.AssistantAgent
---@return tm.AssistantAgent
function tm.AssistantAgent.create_simple(agent) end

--- Known, and refused at load as not supported yet.
---@class tm.DatabaseAgentConstructor
tm.DatabaseAgent = {}

-- Flows

---@class tm.Flow
---@field flow_id string letters, digits, _ and -; at most 64 bytes
---@field name? string
---@field description? string
---@field pattern? string tm.ConversationPattern.STEP_BY_STEP_PROCESS
---@field steps tm.Step[]
---@field start_step string
---@field end_steps? string[] the flow is complete after such a step, whatever its next_steps
--- name → initial value, or { type, default }; type: text, number, integer, boolean, list,
--- object; a step that gives it another type fails
---@field variables? table<string, any>
---@field settings? tm.Settings
---@field on_no_match? (string|tm.NoMatchRung)[] of prompts that have none of their own
--- of prompts that have neither one nor a timeout of their own; instead of interaction_timeout
---@field on_no_input? tm.NoInputRung[]
--- what a user says for back, skip, cancel, restart, help: { cancel = { "stop" } }, or by language,
--- { en = { cancel = … }, de = … }, which session.metadata.language chooses. Each is the user's
--- whole answer, upper or lower case; an option of the prompt is no phrase
---@field phrases? table<string, any>
---@field interrupts? tm.Interrupt[] flows that may run while this one waits for its user
---@field migrate? fun(state: table, from_version: string): table of one that began otherwise

--- The user's answer did not match so many times: this step follows.
---@class tm.NoMatchRung
---@field go string a step, or "end"

--- The user has been silent. One of `say`, `go` and `close`; only the last rung leaves the prompt.
--- A rung that comes late, because no host ran, delays those behind it as much.
---@class tm.NoInputRung
---@field after tm.Duration since the prompt, or the last answer to it
---@field say? string template; the prompt goes on waiting
---@field go? string a step, or "end"
---@field close? true the conversation is `expired`

--- The flow runs until its end, then the interrupted prompt is repeated. Phrases hold inside
--- sub-flows too, an option of the prompt is no phrase, and a flow does not interrupt itself.
---@class tm.Interrupt
---@field flow string
--- each the user's whole answer, upper or lower case, whatever . ! ? follows it
---@field phrases? string[]
---@field condition? fun(ctx: tm.Context): any sees what the user said as ctx.input

---@param flow tm.Flow
---@return tm.Flow
function tm.ConversationFlow(flow) end

--- Stronger than the orchestrator's and agent_config.yaml's; those with one value take no other.
---@class tm.Settings
--- how long a user may stay silent at a prompt; then `expired`. Each answer, refused ones too,
--- begins it anew
---@field interaction_timeout? tm.Duration
---@field max_retries? integer attempts after the first for a failed step; 0 to 100
---@field retry_delay? tm.Duration before the second attempt; doubles, with jitter, up to 5 minutes
---@field persist_state? boolean false: lives in memory only
---@field auto_checkpoint? boolean list rows as checkpoints
---@field checkpoint_interval? tm.Duration between two checkpoints at least; 0: at every wait
---@field lazy_load_agents? false
---@field enable_rollback? boolean whether one may go back; false by default
---@field max_rollback_steps? integer how many answered prompts back at most; needs enable_rollback
---@field allow_step_skipping? boolean the user may skip a question that needs no answer
---@field allow_early_termination? boolean the user may cancel the conversation
--- a conversation whose step has failed for good is `paused`, with the error; who resumes it runs
--- that step again, its attempts anew. Otherwise it ends as `failed`. That of the first flow counts
---@field resume_on_failure? boolean
---@field compress_state? boolean the conversation's rows are compressed
--- the conversation's rows are sealed: state, transcript, journal and calls; needs a key. Nothing
--- takes back what the orchestrator or agent_config.yaml asks for
---@field encrypt_sensitive_data? boolean
---@field parallel_validation? boolean false: of a structured answer only the first error is told
---@field cache_agent_responses? false

---@class tm.Orchestrator
---@field session_config? tm.SessionConfig
---@field error_config? tm.ErrorConfig
---@field performance_config? tm.PerformanceConfig
---@field persistence_config? tm.PersistenceConfig
---@field tenant_isolation? false
---@field encryption? boolean as encrypt_sensitive_data of every flow

---@class tm.SessionConfig
---@field default_timeout? tm.Duration interaction_timeout of flows that say none
---@field idle_session_timeout? tm.Duration a session without open conversations ends; 0: never
---@field session_cleanup_interval? tm.Duration a session is looked at not more often
---@field max_concurrent_sessions? integer open sessions of the store when one is begun; 0: any
---@field session_prefix? string before generated session ids; at most 64 bytes
---@field quota_limits? { max_sessions_per_tenant: integer? }
---@field concurrency? "queue"|"reject"|"merge"|"interrupt" two messages at once (scripting.md)

--- For steps whose attempts are used up, unless an on_error leads on.
---@class tm.ErrorConfig
---@field max_retries? integer of flows that say none
---@field retry_delay? tm.Duration
--- the conversation waits at the step, and the user's next message, which is then its input, runs
--- it again. Not after an error that ends any attempt, as a loop without end
---@field auto_recovery? boolean
---@field fallback_responses? tm.FallbackResponses

--- What the user is told, as it stands here; the record of the step keeps the real error.
---@class tm.FallbackResponses
---@field agent_timeout? string the agent took longer than its timeout
---@field agent_error? string the agent failed otherwise
---@field network_error? string of any step: what it called could not be reached

---@class tm.PerformanceConfig
---@field step_timeout? tm.Duration wall clock of one attempt of a step
--- from start to end of a conversation, waiting included; then it is `expired`, whatever comes in.
--- While it is paused, no time passes for it. 0: no limit
---@field max_workflow_duration? tm.Duration
--- branches of parallel steps at once, at most 8 at a time; otherwise in turn, by name
---@field parallel_execution? boolean
---@field resource_monitoring? false

---@class tm.PersistenceConfig
---@field auto_checkpoint? boolean
---@field checkpoint_interval? tm.Duration
---@field max_checkpoints? integer listed of one conversation; 0: all
---@field auto_save? boolean false: as persist_state = false
---@field compression? boolean compress_state of the flows that do not say it
---@field encryption? boolean as encrypt_sensitive_data of every flow
---@field tenant_isolation? false

---@param orchestrator tm.Orchestrator
---@return tm.Orchestrator
function tm.ConversationOrchestrator(orchestrator) end

-- Steps

--- Templates name values as {name}, {a.b}, {name|default}; {{ is a brace. Names come from state,
--- then {user_id}, {session_id}, {session.metadata.x}, then the system's config.
---@class tm.Step
---@field step_id string unique in the flow; "end" is reserved
---@field step_type "agent_response"|"user_input"|"decision"|"action"|"subflow"|"approval"
---|"wait"|"parallel"
--- an agent of the system, by value or name (agent_response; a decision with classify)
---@field agent? tm.Agent|string
---@field prompt? string template: for the agent, or what the user is asked (user_input)
---@field response? string template: what an offline agent says (agent_response)
--- what an offline agent chooses, with classify; `default = …` beside the rules
---@field outcome? string|fun(ctx: tm.Context): string|tm.OutcomeRule[]
---@field input_schema? tm.InputSchema (user_input)
--- its first result is the output; nil and an error fail the step (action)
---@field run? fun(ctx: tm.Context): any, any
--- (decision) without conditional_logic it names the next step
---@field condition? string|fun(ctx: tm.Context): any
--- (user_input) instead of the reason: a template for each attempt, the last one for all that
--- follow, or the step that follows
---@field on_no_match? (string|tm.NoMatchRung)[]
---@field on_no_input? tm.NoInputRung[] (user_input) instead of a timeout
--- (approval) whose decision it waits for; the outcomes are approved and rejected, the output is
--- { approved, role, user_id, comment, at, timed_out }
---@field role? string
---@field default? "approved"|"rejected" (approval) after its timeout; "rejected" when absent
--- (wait) how long, or a function that says it; the outcome is timeout
---@field seconds? tm.Duration|fun(ctx: tm.Context): tm.Duration
---@field until_time? integer|fun(ctx: tm.Context): integer (wait) milliseconds since 1970, UTC
--- (wait) template: the name of the event it waits for, at most for its timeout; the outcomes are
--- event and timeout, the output is what came with the event
---@field event? string
---@field flow? string the flow that runs until its end before this step is complete (subflow)
--- (subflow) initial values of the other flow's variables; a text is a template, and one that is
--- nothing but a name, "{order}", gives the value itself
---@field arguments? table<string, any>
--- (subflow) what of the other flow's state is the output: a name, or names for an object of them
---@field result? string|string[]
--- (parallel) by name: a list of steps, the last of which needs no next_steps and which begin with
--- a copy of this state; or a flow of the system, or its flow_id, which begins with its variables,
--- those that this state has by name from there. They wait neither for people nor for time, and
--- what they write stays theirs; the output is { name = output of the branch's last step }
---@field branches? table<string, tm.Step[]|tm.Flow|string>
--- (parallel) how many branches must be completed, "all" when absent; the others are cancelled.
--- The step fails when too many have failed
---@field join? "all"|"any"|integer
--- (parallel) how many branches run at once, at most 15; instead of parallel_execution
---@field concurrency? integer
--- (parallel) its first result is the output instead; nil and an error fail the step. It may
--- neither write state nor call the outside
---@field merge? fun(ctx: tm.Context, results: table<string, tm.BranchResult>): any, any
---@field next_steps? string[] the allowed successors, or "end"; the first is the default
---@field conditional_logic? tm.ConditionalLogic
---@field metadata? tm.Metadata
---@field save_as? string name in state for the output
---@field on_error? string the step that follows when all attempts have failed
--- takes back what the step did outside; ctx.state is read-only; nil and an error fail it
---@field undo? fun(ctx: tm.Context, output: any): any, any
--- true, or nil and calls without undo: only a forced rollback goes over it
---@field irreversible? boolean
---@field timeout? tm.Duration wall clock of an attempt; of a user_input: how long it waits
---@field max_retries? integer (not user_input)
---@field retry_delay? tm.Duration (not user_input)

---@param step tm.Step
---@return tm.Step
function tm.ConversationStep(step) end

---@class tm.BranchResult
---@field status "completed"|"failed"|"cancelled" completed too late for `join`: cancelled
---@field output any of its last step (completed)
---@field state table? its state at the end (completed)
---@field error { code: string, message: string, step_id: string }? (failed)

--- The other keys map outcomes to steps of next_steps, to "end", or to "flow:<id>": that flow runs
--- until its end, with those of its variables that this state has by name, and then the first of
--- next_steps follows. Outcomes that are no texts are
--- written as { [true] = "a", [3] = "b" }.
---@class tm.ConditionalLogic
--- a name: this step's output if it is saved under it (`value` and `output` mean it too), or a
--- member of it, else a name in state. A custom answer to a choice is the outcome "custom". A
--- function sees ctx.output and may not write
---@field condition? string|fun(ctx: tm.Context): any
---@field classify? boolean the step's agent chooses among the outcomes
---@field default? string the step for all other outcomes

--- One rule of an offline `outcome`; all its criteria must hold. It looks at the user's input of
--- this turn, or at a name in state.
---@class tm.OutcomeRule
---@field outcome string
---@field from? string name in state
---@field contains? string|string[] one of these, upper or lower case
---@field equals? string upper or lower case
---@field matches? string Lua pattern
---@field longer_than? integer characters

---@class tm.Metadata
---@field step_category? string label
---@field required_context? string[] names that must be in state; missing ones fail the step
--- the first holds the answer; fields of a structured input keep their own names
---@field data_collection? string[]
---@field timeout? tm.Duration as the step's timeout (user_input, agent_response)
---@field decision_point? boolean `check` verifies: it has branches
---@field requires_specialist? boolean `check` verifies: its agent is not the flow's first
---@field potential_loop_back? boolean `check` verifies: a path leads back
---@field allows_multiple_iterations? boolean `check` verifies: it is on a cycle
---@field solution_type? string label
--- (user_input) the answer is the conversation's `feedback`
---@field satisfaction_check? boolean
---@field custom? table plain values, returned untouched with the flow's description
--- (structured user_input) an object fills the fields that are right; the others are asked for
--- after it. What is filled is still there when the prompt, left by on_no_match or on_no_input,
--- comes back
---@field allows_partial_completion? boolean
---@field satisfaction_survey? boolean (user_input) as satisfaction_check
--- how long the step should take, its user's time included; longer: the event `slow_step` in the
--- log. In the description of the flow as `expected_ms`
---@field expected_duration? tm.Duration
---@field processing_time? tm.Duration the same as expected_duration

--- A refused answer is asked again with the reason and a hint: validation_hints by rule (required,
--- type, min_length, max_length, pattern, min, max, option, validate, structured), or as a list, by
--- the number of the attempt, the last one for all further attempts.
---@class tm.InputSchema: tm.Input
---@field type "text"|"choice"|"structured"|"number"|"integer"|"boolean"|"date"|"email"|"phone"
--- (structured) answered at once by an object, or one by one by plain answers
---@field fields? tm.Field[]

--- An empty answer that is not required is "" for text and tm.null for other types.
---@class tm.Input
---@field required? boolean of a structured input: at least one field
---@field min_length? integer characters (text, custom answers)
---@field max_length? integer
---@field pattern? string Lua pattern
---@field min? number|string (number, integer; date as "2025-03-31")
---@field max? number|string
--- (choice) matched as value, label, number, unambiguous beginning
---@field options? (string|tm.Option)[]
---@field allow_custom_response? boolean (choice) any other text is accepted
---@field placeholder? string passed to the client
---@field validation_hints? string[]|table<string, string>
--- false or nil refuses, with a reason; of a structured input it gets the whole object, and what
--- it refuses is asked for anew from the first field on
---@field validate? fun(value: any, ctx: tm.Context): boolean?, string?

---@class tm.Field: tm.Input
---@field name string
---@field type "text"|"choice"|"number"|"integer"|"boolean"|"date"|"email"|"phone"
---@field prompt? string its question when fields are asked one by one

---@class tm.Option
---@field label string
---@field value? string|number|boolean the label when absent

tm.ConversationPattern = {
  STEP_BY_STEP_PROCESS = "step_by_step_process",
  SIMPLE_CHAT = "simple_chat",
  INFORMATION_GATHERING = "information_gathering",
  DECISION_TREE = "decision_tree",
  APPROVAL_WORKFLOW = "approval_workflow",
  MULTI_AGENT_COLLABORATION = "multi_agent_collaboration",
  DATABASE_INTERACTION = "database_interaction",
}

-- Values

---Marks a table as a list, so that it stays one when it is empty.
---@param t? table
---@return table
function tm.array(t) end

--- JSON's null; not nil, and true in a condition: compare with `==`.
---@type userdata
tm.null = nil

-- ctx

--- What a script's function sees. Conditions, validate and outcome functions see the state
--- read-only and cannot call the outside. Plain data only is kept in state: no functions, no NaN,
--- no lists with holes, no objects of a class; what a step left there is a copy for the next one.
--- Globals, and the tables that they hold, cannot be written after load. A failed attempt leaves no
--- trace in state.
--- `os.time`, `os.date` and `os.clock` go by `ctx.now`, in UTC. A coroutine that a script makes may
--- call what waits (ctx:http).
---@class tm.Context
---@field state table the conversation's state; what is written here is kept
---@field input any what the user said in this turn; at a start the initial message
---@field session { id: string, user_id: string?, metadata: table } copies
---@field config table the system's config, read-only
---@field now integer when this step began, milliseconds UTC; the same after a crash
---@field conversation_id string
---@field step { id: string, attempt: integer, seq: integer }
---@field output any in a condition: this step's output
local ctx = {}

---@class tm.HttpRequest
---@field url string http:// or https://
---@field method? string "GET" when absent
---@field headers? table<string, string|number>
---@field body? string
---@field json? any instead of body; sets Content-Type
--- 30 s when absent, at most 10 minutes, and never beyond the step's time
---@field timeout? tm.Duration
---@field max_bytes? integer of the answer: 1 MiB when absent, at most 16 MiB

---@class tm.HttpResponse
---@field status integer
---@field headers table<string, string> names in lower case
---@field body string UTF-8; anything else is the error http.not_text
---@field json any? decoded, when the answer says it is JSON

---One request to the outside, made once: after a crash a recorded answer is used again, and what
---was not recorded is repeated with the same Idempotency-Key. Any status is an answer; nil and an
---error (`code`: http.timeout, http.connect, http.resolve, http.tls, http.redirect, http.busy,
---http.too_large, http.not_text, http.failed) mean that there was none. Redirects are followed
---for GET and HEAD, on the same host. The step must ask the same again when it is run again: use
---ctx.now and ctx:random. Another attempt of the step is another call, but see ctx:once. Not in
---conditions, validate or outcome functions.
---@param request tm.HttpRequest
---@return tm.HttpResponse? response
---@return { code: string, message: string, retryable: boolean }? err
function ctx:http(request) end

---Writes to the host's log; at most 5 fields of your own.
---@param level "debug"|"info"|"warning"|"error"
---@param message string
---@param fields? table<string, any>
---@overload fun(self: tm.Context, message: string, fields?: table<string, any>)
function ctx:log(level, message, fields) end

---Numbers that are the same whenever this step runs again: a float in [0, 1), an integer of 1 to m,
---or of m to n.
---@param m? integer
---@param n? integer
---@return number
function ctx:random(m, n) end

---An id of its own, in the form of UUID version 4; the same whenever this step runs again. Whoever
---knows the conversation's id can compute it: no secret.
---@return string
function ctx:uuid() end

---What the function returns is recorded under the name, durable before the script goes on, and is
---the answer whenever the same name comes up in this step: again, after a crash, and in further
---attempts of the step, in which the function does not run any more. It must be plain data; a copy
---of it is given each time. A function that raises, or returns nil and an error, has failed:
---nothing is recorded, and it runs again when it is asked for again.
---It may call ctx:http: such a call has the same Idempotency-Key in every attempt of the step as
---long as it asks the same; ctx:random and ctx:uuid in it give the same in every attempt. It may
---not write ctx.state, use ctx:once, or yield a coroutine. All results of a step are 1 MiB at most.
---@param name string 1 to 200 bytes
---@param fn fun(): any, any
---@return any value
---@return any err
function ctx:once(name, fn) end

return tm
