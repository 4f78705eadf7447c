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
