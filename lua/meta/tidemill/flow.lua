---@meta _
--- What a ConversationFlow says: its steps, ladders, phrases and interrupts.

---@class tm.Flow: tm.AnyFlow
--- tm.ConversationPattern.STEP_BY_STEP_PROCESS when absent; `check` verifies that it has that shape
---@field pattern? string
---@field steps tm.Step[]
---@field start_step string
---@field end_steps? string[] the flow is complete after such a step, whatever its next_steps

---What every flow may say, written step by step or made by a builder of tm.pattern.
---@class tm.AnyFlow
---@field flow_id string letters, digits, _ and -; at most 64 bytes
---@field name? string
---@field description? string
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
