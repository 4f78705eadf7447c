---@meta host.journal
-- luacheck: no unused args
--- What a turn makes durable. `id` is the turn's, as given to `dispatch(id, "turn", turn)`.
--- Codes: `journal.gone` (the turn has ended or was taken away), `journal.draft` (a wrong field),
--- `json.*` (the message begins with the key path).
local journal = {}

---@class host.Draft
---@field status string a conversation's status; `begin` and `suspend` store `active`
---@field step string? the current step
---@field wake_at integer? ms; the earliest deadline
---@field checkpoint boolean?
---@field checkpoint_name string? of the checkpoint
---@field in_memory boolean? start only
---@field compress boolean? the row
---@field seal boolean? likewise; once one row is sealed all that follow are
---@field steps table[]? executions since the last row
---@field events table[]? what the world is to be told of them
---@field messages table[]? messages since the last row
---@field state table whole
---@field runtime table whole
---@field prompt table? what the user is asked
---@field error table? of a failed conversation

---Appends a begin row and takes the claim: needed before the first outside call. Completes with no
---values when it is durable.
---@param id integer
---@param draft host.Draft
---@return integer? op
---@return host.Error? err
function journal.begin(id, draft) end

---Appends a recorded call. Completes with no values when it is durable.
---@param id integer
---@param key string
---@param result any what can be encoded
---@return integer? op
---@return host.Error? err
function journal.call(id, key, result) end

---Reads what was said before, as far as rows hold it. Completes with a page, as JSON: `items`, the
---newest message first, and `next`, the cursor of the page behind it, or null.
---@param id integer
---@param cursor string? of the page before; that of the first page is nil
---@return integer? op
---@return host.Error? err
function journal.messages(id, cursor) end

---Ends the turn.
---@param id integer
---@param draft host.Draft
---@return true? ok nil: the draft could not be encoded, the turn goes on
---@return host.Error? err
function journal.commit(id, draft) end

---Ends the execution; the turn goes on as a resume at `draft.wake_at`.
---@param id integer
---@param draft host.Draft
---@return true? ok nil: the draft could not be encoded, the turn goes on
---@return host.Error? err
function journal.suspend(id, draft) end

---Ends the turn with an error as the answer. Of a table: code, message, step_id, and status, a name
---of tm_status ("not_found", "conflict", "invalid", …); without status it is a failed script.
---@param id integer
---@param err host.Error|table|string
---@return true? ok
---@return host.Error? err
function journal.fail(id, err) end

---Ends a turn of the kind `undo`: of the draft steps, messages, `compress`, `seal` and of the
---runtime `step_seq` and `undone` are taken, the rest is that of the row gone back to.
---@param id integer
---@param draft host.Draft
---@param err? host.Error why the rollback ends where it is
---@return true? ok nil: the draft could not be encoded, the turn goes on
---@return host.Error? err
function journal.undone(id, draft, err) end

---Ends the turn and goes back. What the flow does not allow is in `refused` of the turn, which then
---runs once more.
---@param id integer
---@param steps integer answered prompts, 1 to 100
---@return true? ok
---@return host.Error? err
function journal.rollback(id, steps) end

---Ends a turn of the kind `command`, which then runs anew with `trail` in its input: what was done
---since one of the steps was answered last. Where there is no such answer, `refused` says so, as
---above.
---@param id integer
---@param step_ids string[]
---@param command? table of a message, which runs as this command then
---@return true? ok
---@return host.Error? err
function journal.trail(id, step_ids, command) end

return journal
