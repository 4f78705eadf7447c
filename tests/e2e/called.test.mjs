// A call that had left when its step was cut off: nobody knows what became of it, so whoever goes
// back over it is told first, and so is the caller of a saga.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Outside, Place, Server, wait } from './host.mjs';

const SYSTEM = (url) => `
local tm = require "tidemill"
local Step = tm.ConversationStep

local function send(ctx, what) return ctx:http { method = "POST", url = "${url}/" .. what } end
local function act(name, more)
  local step = { step_id = name, step_type = "action",
    run = function(ctx)
      local answer, err = send(ctx, name)
      return answer and answer.status, err
    end }
  for key, value in pairs(more or {}) do step[key] = value end
  return Step(step)
end
local function undone(more)
  more = more or {}
  more.undo = function(ctx) return send(ctx, "undo") end
  return more
end
local function ask(name, next_step)
  return Step { step_id = name, step_type = "user_input", prompt = "Go?", save_as = name,
    input_schema = { type = "text" }, next_steps = { next_step } }
end
local function both(more)
  local step = { step_id = "both", step_type = "parallel", concurrency = 2, next_steps = { "b" },
    on_error = "b", branches = { l = { act("l1", undone { next_steps = { "slow" } }),
      act("slow", undone()) }, r = { act("r1", undone()) } } }
  for key, value in pairs(more) do step[key] = value end
  return Step(step)
end
local function flow(name, fields, steps)
  local given = { flow_id = name, start_step = "a", settings = { enable_rollback = true, max_retries = 0 },
    steps = steps }
  for key, value in pairs(fields) do given[key] = value end
  return tm.ConversationFlow(given)
end
local function doomed()
  return Step { step_id = "doomed", step_type = "action", next_steps = { "b" },
    run = function() error { code = "test.doomed", message = "no", retryable = false } end }
end
local attempts = Step { step_id = "slow", step_type = "action", timeout = 1, max_retries = 1,
  retry_delay = 0.01, next_steps = { "b" }, save_as = "paid", run = function(ctx)
    if ctx.step.attempt == 1 then send(ctx, "slow") end
    return ctx.state.a
  end }

return tm.system { name = "pay", agents = {}, orchestrator = tm.ConversationOrchestrator {
  session_config = { concurrency = "interrupt" } }, flows = {
  flow("step", {}, { ask("a", "slow"), ask("b", "b"),
    act("slow", { timeout = 1, next_steps = { "b" }, on_error = "b" }) }),
  flow("fork", {}, { ask("a", "both"), ask("b", "b"), both { timeout = 1 } }),
  flow("any", {}, { ask("a", "both"), ask("b", "b"), both { join = "any",
    branches = { l = { act("l1", undone { next_steps = { "slow" } }), act("slow", undone()) },
      r = { act("later", undone()) } } } }),
  flow("saga", { compensate_on_failure = true }, { ask("a", "slow"), ask("b", "b"),
    act("slow", undone { timeout = 1, next_steps = { "b" } }) }),
  flow("saga_any", { compensate_on_failure = true }, { ask("a", "both"), ask("b", "b"), doomed(),
    both { join = "any", next_steps = { "doomed" },
      branches = { l = { act("slow", undone()) }, r = { act("later", undone()) } } } }),
  flow("correct", {}, { ask("a", "slow"), ask("b", "b"), attempts }),
  flow("long", {}, { ask("a", "which"), ask("b", "b"), act("later", { next_steps = { "b" } }),
    Step { step_id = "which", step_type = "decision", next_steps = { "later", "b" },
      conditional_logic = { condition = function(ctx) return ctx.state.a end,
        yes = "later", no = "b" } } }),
} }
`;

let place, outside, server;
const DELAYS = { '/slow': 3000, '/later': 500 };
before(async () => {
  outside = await new Outside((url) => DELAYS[url] ?? 0).start();
  place = new Place();
  place.script('pay', SYSTEM(outside.url));
  server = await new Server(place).start();
});
after(async () => {
  await server?.kill();
  await outside?.stop();
  place?.remove();
});

const get = async (path) => (await server.get(`/v1/conversations/${path}`)).json;
const begin = async (flow) => (await server.begin('pay', flow)).json.conversation_id;
const back = (id, more) => server.post(`/v1/conversations/${id}/rollback`, { steps: 1, ...more });
const asked = (from) => outside.requests.slice(from).map((r) => r.url.slice(1));

async function paid(flow) {
  const id = await begin(flow);
  const from = outside.requests.length;
  const turn = await server.say(id, 'yes');
  assert.equal(turn.status, 200, turn.text);
  assert.ok(asked(from).includes('slow'));
  return { id, from: outside.requests.length, turn: turn.json };
}

async function check_named(id, names) {
  const r = await back(id);
  assert.equal(r.json.code, 'rollback.irreversible', r.text);
  assert.match(r.json.detail, new RegExp(`taken back: ${names};`));
}

test('the time of its step was over', async () => {
  const { id, turn } = await paid('step');
  assert.equal(turn.current_step, 'b');
  await check_named(id, 'slow');
  assert.equal((await back(id, { force: true })).json.current_step, 'a');
});

test('the time of the step around its branch was over', async () => {
  const { id, turn, from } = await paid('fork');
  assert.equal(turn.current_step, 'b');
  await check_named(id, 'slow');
  assert.deepEqual(asked(from), []);
});

test('another branch was completed first', async () => {
  const { id, from } = await paid('any');
  await check_named(id, 'slow');
  assert.deepEqual(asked(from), []);
  assert.equal((await back(id, { force: true })).status, 200);
  assert.deepEqual(asked(from), ['undo', 'undo']);
});

test('a saga names it, though it has an undo', async () => {
  const { turn } = await paid('saga');
  assert.equal(turn.status, 'failed');
  assert.deepEqual(turn.error.compensation, { failed: [], irreversible: ['slow'], undone: 0 });
  assert.match(turn.error.message, /0 steps were undone; could not be taken back: slow\)/);
  const other = (await paid('saga_any')).turn;
  assert.deepEqual(other.error.compensation, { failed: [], irreversible: ['slow'], undone: 1 });
});

test('a correction names it', async () => {
  const { id, from } = await paid('correct');
  const r = await server.post(`/v1/conversations/${id}/messages`,
    { command: 'correct', name: 'a', input: 'no' });
  assert.match(JSON.stringify(r.json), /cannot be taken back: slow;/, r.text);
  assert.deepEqual(asked(from), []);
  assert.equal((await get(id)).state.a, 'yes');
});

test('another message took the place of its turn', async () => {
  const id = await begin('long');
  const from = outside.requests.length;
  const first = server.say(id, 'yes');
  while (!asked(from).includes('later')) await wait(20);
  const second = await server.say(id, 'no');
  assert.equal((await first).json.code, 'conversation.interrupted');
  assert.equal(second.json.current_step, 'b', second.text);
  assert.deepEqual(asked(from), ['later']);
  await check_named(id, 'later');
  assert.equal((await back(id, { force: true })).json.current_step, 'a');
});
