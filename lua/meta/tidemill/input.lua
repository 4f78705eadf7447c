---@meta _
--- What a user_input asks for.

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
