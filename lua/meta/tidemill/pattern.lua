---@meta _
--- What the builders of tm.pattern are given: the fields of any flow, and their own.

--- Steps in their order: one without next_steps goes on to the one behind it, the last one to
--- "end".
---@class tm.StepByStepProcess: tm.AnyFlow
---@field steps tm.Step[]

--- The user says something, the agent answers, and so on. Steps: ask, answer, ask_again, farewell.
---@class tm.SimpleChat: tm.AnyFlow
---@field agent tm.Agent|string
---@field prompt string template: what the user is asked first
---@field again? string template: what he is asked after each answer; `prompt` when absent
--- template: what a model is told; {message} is what the user said, {answer} the last answer
---@field instruction? string
---@field response? string template: what an offline agent says
--- each the user's whole answer, upper or lower case; "bye" and "goodbye" when absent
---@field stop? string[]
---@field farewell? string template: what the agent says at the end

--- Answers kept by name. Steps: ask_NAME for each question, or ask; confirm; change, change_NAME;
--- hand_over; thanks.
---@class tm.InformationGathering: tm.AnyFlow
---@field questions tm.Question[]
---@field together? string template: what the user is asked, who then answers all of it as one form
--- template: shows the user what he said; after a no he changes it
---@field confirm? string
---@field change? string template: asks which answer is to be changed, where there are several
--- what is done with the answers in ctx.state; its first result is kept as {result}
---@field run? fun(ctx: tm.Context): any, any
---@field agent? tm.Agent|string who says `response` at the end
---@field instruction? string template: what a model is told
---@field response? string template: what an offline agent says

---@class tm.Question: tm.Field
---@field prompt string

--- Each node is a step of the same id; the flow is complete at a leaf.
---@class tm.DecisionTree: tm.AnyFlow
---@field tree tm.TreeNode
---@field agent? tm.Agent|string who says what leaves say

--- A question (ask, options), a condition (condition, outcomes), or a leaf (say, run or flow).
---@class tm.TreeNode
--- also the name in state of the answer; "tree" and what leads to the node when absent: "tree_2_1"
---@field id? string
---@field ask? string template: what the user is asked
---@field options? tm.TreeOption[] (ask)
---@field condition? string|fun(ctx: tm.Context): any a name in state, or a function
---@field outcomes? table<string, tm.TreeNode> (condition)
--- (ask) after an answer in the user's own words; (condition) after any other outcome
---@field otherwise? tm.TreeNode
---@field say? string template: what an offline agent says
---@field instruction? string template: what a model is told (say)
---@field agent? tm.Agent|string instead of the tree's (say)
---@field run? fun(ctx: tm.Context): any, any its first result is kept as {result}
---@field flow? string this flow of the system runs

---@class tm.TreeOption
---@field label string
---@field value? string|number|boolean the label when absent
---@field leads_to tm.TreeNode

--- Steps: ask_NAME for each question, approve_1 and so on, carry_out, tell_approved, tell_rejected.
---@class tm.ApprovalWorkflow: tm.AnyFlow
---@field request? tm.Question[] what the user is asked first
--- who decides, one after the other; the decisions are kept as {approval_1} and so on, with
--- approved, role, user_id, comment and at
---@field approvals tm.ApprovalOf[]
---@field revise? boolean a rejected request is asked for again
--- what is done when all have approved; its first result is kept as {result}
---@field run? fun(ctx: tm.Context): any, any
---@field undo? fun(ctx: tm.Context, output: any): any, any takes back what `run` did outside
---@field irreversible? boolean of `run`
---@field agent? tm.Agent|string who says `approved` and `rejected`
---@field approved? string template
---@field rejected? string template

---@class tm.ApprovalOf
---@field role string
---@field prompt string template: what is to be approved
---@field timeout? tm.Duration
---@field default? "approved"|"rejected" after the timeout; "rejected" when absent

--- sequential: one after the other. debate: all in each of `rounds`, then the conclusion.
--- consensus: all in each round, with a vote, until enough agree; whoever chooses no option
--- abstains. map_reduce: `split` makes parts, on which all work, and the conclusion makes one of
--- them. Steps: task; the participants' names, round_1 and so on, or split and map; conclusion.
---@class tm.MultiAgentCollaboration: tm.AnyFlow
---@field mode "sequential"|"debate"|"consensus"|"map_reduce"
---@field prompt? string template: what the user is asked for first, {task}
---@field participants tm.Participant[] two or more
---@field conclusion? tm.Conclusion who speaks last; needed by debate and map_reduce
---@field concurrency? integer how many speak at once, at most 15 (not sequential)
---@field rounds? integer of a debate 2 when absent, until a consensus at most 3
---@field options? string[] (consensus) among which all choose; names
--- (consensus) how many must choose the same: more than half, "majority", when absent
---@field agreement? "all"|"majority"|integer
--- (map_reduce) the list of parts; nil and an error fail it
---@field split? fun(ctx: tm.Context): table?, any

--- The names that templates may use: sequential: {NAME} of those before. debate:
--- {debate.said.NAME|} in the last round, {debate.rounds.1.NAME|} in the first. consensus:
--- {consensus.agreed|} and {consensus.votes.NAME|}, {consensus.said.NAME|},
--- {consensus.counts.OPTION|}. map_reduce: {part}, and in the conclusion {results}.
---@class tm.Participant
---@field name string letters, digits and _
---@field agent tm.Agent|string
---@field instruction? string template: what a model is told
---@field response? string template: what an offline agent says
--- (consensus) what an offline agent chooses, as in a step
---@field outcome? string|fun(ctx: tm.Context): string|tm.OutcomeRule[]

---@class tm.Conclusion
---@field agent tm.Agent|string
---@field instruction? string template
---@field response? string template
