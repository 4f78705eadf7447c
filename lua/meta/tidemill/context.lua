---@meta _
--- `ctx`: what a script's function sees and may call.
-- luacheck: ignore 212 241

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
---@field output any in a condition: this step's output; of a review: the reply
local ctx = {}

---@class tm.HttpRequest
---@field url string http:// or https://
---@field method? string "GET" when absent
---@field headers? table<string, string|number>
---@field body? string
---@field json? any instead of body; sets Content-Type
--- 30 s when absent, at most 10 minutes, and never beyond the step's time
---@field timeout? tm.Duration
---@field max_bytes? integer of the answer: at most limits.http_response, which it is when absent

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

---Tells the world: once the step is completed and durable, the event is posted to webhooks.url,
---signed, at least once, after those that the conversation emitted before. An attempt of the step
---that fails tells nothing; a rollback takes nothing back, but an `undo` may emit the opposite. Not
---in conditions, nor inside ctx:once. At most 64 of a step.
---@param name string 1 to 64 of a-z, 0-9, '_', '.' and '-', a letter first
---@param data any? plain data, at most 64 KiB as JSON
function ctx:emit(name, data) end

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
