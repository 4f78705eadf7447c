// The system of every_step*.test.mjs. `all` goes through every type of step, each with calls to the
// outside and events, and back again by undo functions that call as well; `saga` fails, and its steps
// are undone; `forced` goes back over a branch that was cut off and an undo that fails for good.
const MIGRATE = `migrate = function(state)
  state.item = state.item .. " and socks"
  return state
end`;

// Of the second version conversations of `forced` go on from those of the first.
export const system = (url, version = 1) => `
local tm = require "tidemill"
local Step = tm.ConversationStep

local function call(ctx, name, more)
  local answer = assert(ctx:http { method = "POST", url = "${url}/" .. name, json = more or {} })
  if answer.status ~= 200 then error(name .. ": status " .. answer.status) end
  return answer.json
end

local function act(name, onward, more)
  local step = more or {}
  step.step_id, step.step_type, step.next_steps, step.save_as = name, "action", { onward }, name
  local run = step.run or function(ctx) return call(ctx, name, { item = ctx.state.item }) end
  step.run = function(ctx)
    local result = run(ctx)
    ctx:emit("did." .. name, { item = ctx.state.item })
    return result
  end
  step.undo = function(ctx, output) call(ctx, "undo_" .. name, { output = output }) end
  return Step(step)
end

-- Nobody ever answers "late".
local function race(onward)
  return Step { step_id = "race", step_type = "parallel", save_as = "race", join = "any",
    branches = { late = { act("late", "end") }, won = { act("won", "end") } }, concurrency = 2,
    next_steps = { onward } }
end

local function branch(name)
  return { act(name .. "_one", name .. "_two"), act(name .. "_two", "end") }
end

local clerk = { respond = function(ctx)
  return "Clerk " .. call(ctx, "clerk", { item = ctx.state.item }).name
end }

return tm.system { name = "every", agents = { clerk = clerk }, flows = {
  tm.ConversationFlow { flow_id = "all", start_step = "ask", variables = { count = 0 },
    settings = { enable_rollback = true, max_retries = 3, retry_delay = 0.01 }, steps = {
    Step { step_id = "ask", step_type = "user_input", prompt = "Item?", save_as = "item",
      input_schema = { type = "text", required = true }, next_steps = { "pay" } },
    act("pay", "speak", { run = function(ctx)
      local bill = ctx:once("bill", function() return call(ctx, "bill") end)
      return { bill = bill.name, paid = call(ctx, "pay", { draw = ctx:random(1000) >= 0 }).name }
    end }),
    Step { step_id = "speak", step_type = "agent_response", agent = "clerk",
      irreversible = false, next_steps = { "which" } },
    Step { step_id = "which", step_type = "decision", next_steps = { "inside", "end" },
      condition = function(ctx) return ctx.state.item end,
      conditional_logic = { none = "end", default = "inside" } },
    Step { step_id = "inside", step_type = "subflow", flow = "address", result = "street",
      save_as = "street", next_steps = { "sign" } },
    Step { step_id = "sign", step_type = "approval", role = "manager", prompt = "Send?",
      next_steps = { "both", "end" }, conditional_logic = { approved = "both", rejected = "end" } },
    Step { step_id = "both", step_type = "parallel", save_as = "both",
      irreversible = false, concurrency = 2, -- its steps have undo functions
      branches = { left = branch "left", right = branch "right" }, next_steps = { "paid" } },
    Step { step_id = "paid", step_type = "wait", event = "paid", save_as = "receipt",
      next_steps = { "flaky" } },
    act("flaky", "rest"),
    Step { step_id = "rest", step_type = "wait", seconds = 0.02, next_steps = { "tell" } },
    act("tell", "more"),
    Step { step_id = "more", step_type = "user_input", prompt = "More, {count}?", save_as = "more",
      input_schema = { type = "text", required = true }, next_steps = { "bye" } },
    act("bye", "end"),
  } },
  tm.ConversationFlow { flow_id = "address", start_step = "street", variables = { street = "" },
    settings = { enable_rollback = true, max_retries = 3, retry_delay = 0.01 }, steps = {
    Step { step_id = "street", step_type = "user_input", prompt = "Street?", save_as = "street",
      input_schema = { type = "text", required = true }, next_steps = { "look_up" } },
    act("look_up", "end"),
  } },
  tm.ConversationFlow { flow_id = "saga", start_step = "ask", compensate_on_failure = true,
    settings = { max_retries = 2, retry_delay = 0.01 }, steps = {
    Step { step_id = "ask", step_type = "user_input", prompt = "Item?", save_as = "item",
      input_schema = { type = "text", required = true }, next_steps = { "book" } },
    act("book", "load"),
    act("load", "street"),
    Step { step_id = "street", step_type = "user_input", prompt = "Street?", save_as = "street",
      input_schema = { type = "text", required = true }, next_steps = { "flaky" } },
    act("flaky", "race"),
    race "doomed",
    act("doomed", "end"),
  } },
  tm.ConversationFlow { flow_id = "forced", start_step = "ask",
    settings = { enable_rollback = true, max_retries = 1, retry_delay = 0.01 }, steps = {
    Step { step_id = "ask", step_type = "user_input", prompt = "Item?", save_as = "item",
      input_schema = { type = "text", required = true }, next_steps = { "stuck" } },
    act("stuck", "race"),
    race "more",
    Step { step_id = "more", step_type = "user_input", prompt = "More than {item}?",
      save_as = "more", input_schema = { type = "text", required = true }, next_steps = { "bye" } },
    act("bye", "end"),
  }, ${version > 1 ? MIGRATE : ''} },
} }
`;
