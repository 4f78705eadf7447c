-- Tables, kept over the turns, are dropped at once.
-- expect: waiting_input
-- say: "x"
-- say: "x"
-- say: "x"
-- say: "x"
-- say: "x"
-- say: "x"
-- say: "x"
-- say: "x"
-- say: "x"
-- say: "x"
local tm = require "tidemill"
local hoard = {}
local function keep(ctx)
  local n = (ctx.state.n or 0) + 1
  ctx.state.n = n
  if n == 8 then hoard = {} end
  if n >= 8 then
    for i = 1, 600 do local _ = ("x"):rep(10000 + i) end
    return
  end
  local more = {}
  hoard[#hoard + 1] = more
  for i = 1, 12000 do more[i] = { i } end
end
return { variables = { n = { type = "integer" } }, steps = {
  tm.ConversationStep { step_id = "keep", step_type = "action", run = keep,
    next_steps = { "ask" } },
  tm.ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?", save_as = "said",
    input_schema = { type = "text" }, next_steps = { "keep" } } } }
