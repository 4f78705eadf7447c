// Rollback over a parallel step, or one that calls another flow: what the steps in it did is taken
// back by their own functions, and what cannot be is named by its own step.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Outside, Place, Server } from './host.mjs';

const SYSTEM = (url) => `
local tm = require "tidemill"
local Step = tm.ConversationStep

local function act(name, next_step, undo)
  local function send(ctx, what) return ctx:http { method = "POST", url = "${url}/" .. what } end
  return Step { step_id = name, step_type = "action", next_steps = { next_step },
    run = function(ctx)
      local answer, err = send(ctx, name)
      return answer and answer.status, err
    end,
    undo = undo and function(ctx) return send(ctx, undo) end }
end

local function flow(name, mail)
  return tm.ConversationFlow { flow_id = name, start_step = "ask",
    settings = { enable_rollback = true }, steps = {
      Step { step_id = "ask", step_type = "user_input", prompt = "Go?", save_as = "said",
        input_schema = { type = "text" }, next_steps = { "both" } },
      Step { step_id = "both", step_type = "parallel", concurrency = 2, next_steps = { "ask" },
        branches = { hotel = { act("book", "confirm", "unbook"), act("confirm", "end", "recall") },
          train = { act("reserve", mail, "release"), act("mail", "end") } } } } }
end

-- What its branches do may stay, however often it is tried, and whether the step is completed or not.
local function free(name, failures)
  local function note(step_id)
    return Step { step_id = step_id, step_type = "action", next_steps = { "end" }, max_retries = 1,
      retry_delay = 0, irreversible = false,
      run = function(ctx)
        ctx:http { method = "POST", url = "${url}/" .. step_id }
        if step_id == "note" and ctx.step.attempt <= failures then error("odd") end
      end }
  end
  return tm.ConversationFlow { flow_id = name, start_step = "ask",
    settings = { enable_rollback = true }, steps = {
      Step { step_id = "ask", step_type = "user_input", prompt = "Go?", save_as = "said",
        input_schema = { type = "text" }, next_steps = { "both" } },
      Step { step_id = "both", step_type = "parallel", next_steps = { "ask" }, on_error = "ask",
        branches = { hotel = { note("note") }, train = { note("mark") } } } } }
end

-- What the other flow did is taken back, or may stay, as the step that calls it says.
local function calling(name, says)
  local call = Step { step_id = "rest", step_type = "subflow", flow = "rest", next_steps = { "ask" } }
  for key, value in pairs(says) do call[key] = value end
  return tm.ConversationFlow { flow_id = name, start_step = "ask",
    settings = { enable_rollback = true }, steps = {
      Step { step_id = "ask", step_type = "user_input", prompt = "Go?", save_as = "said",
        input_schema = { type = "text" }, next_steps = { "rest" } }, call } }
end

local function ask(id, to)
  return Step { step_id = id, step_type = "user_input", prompt = id .. "?", input_schema = { type = "text" },
    next_steps = { to } }
end

local asked = tm.ConversationFlow { flow_id = "asked", start_step = "a", settings = { enable_rollback = true },
  interrupts = { { flow = "aside", phrases = { "hm" } } }, steps = { ask("a", "b"), ask("b", "end") } }
local aside = tm.ConversationFlow { flow_id = "aside", start_step = "c", steps = { ask("c", "d"), ask("d", "end") } }

local half = tm.ConversationFlow { flow_id = "half", start_step = "pay", steps = {
  act("pay", "sure", "refund"), ask("sure", "ship"), act("ship", "end") } }
local rest = tm.ConversationFlow { flow_id = "rest", start_step = "sleep",
  steps = { act("sleep", "eat", "wake"), act("eat", "end") } }
local function bring(ctx) return ctx:http { method = "POST", url = "${url}/bring" } end

return tm.system { name = "trip", agents = {}, flows = { flow("quiet", "end"), flow("loud", "mail"),
  asked, aside, half, calling("midway", { flow = "half", undo = bring }), rest, calling("called", {}), calling("covered", { undo = bring }),
  calling("staying", { irreversible = false }), free("free", 0), free("tried_again", 1), free("given_up", 9) } }
`;

let place, outside, server;
before(async () => {
  outside = await new Outside().start();
  place = new Place();
  place.script('trip', SYSTEM(outside.url));
  server = await new Server(place).start();
});
after(async () => {
  await server?.kill();
  await outside?.stop();
  place?.remove();
});

async function travelled(flow) {
  const id = (await server.begin('trip', flow)).json.conversation_id;
  assert.equal((await server.say(id, 'yes')).status, 200);
  return { id, from: outside.requests.length };
}
const back = (id, more) =>
  server.post(`/v1/conversations/${id}/rollback`, { steps: 1, ...more });
const asked = (from) => outside.requests.slice(from).map((r) => r.url.slice(1));

test('the steps of branches are undone one by one', async () => {
  const { id, from } = await travelled('quiet');
  const r = await back(id);
  assert.equal(r.status, 200, r.text);
  assert.equal(r.json.current_step, 'ask');
  assert.deepEqual(asked(from), ['release', 'recall', 'unbook']);
});

test('what cannot be taken back in a branch is named by its step', async () => {
  const { id, from } = await travelled('loud');
  const r = await back(id);
  assert.equal(r.json.code, 'rollback.irreversible');
  assert.match(r.json.detail, /taken back: mail;/);
  assert.deepEqual(asked(from), []);
  assert.equal((await back(id, { force: true })).status, 200);
  assert.deepEqual(asked(from), ['release', 'recall', 'unbook']);
});

test('what cannot be taken back in another flow is named with that flow', async () => {
  const { id, from } = await travelled('called');
  const r = await back(id);
  assert.equal(r.json.code, 'rollback.irreversible');
  assert.match(r.json.detail, /taken back: rest\/eat;/);
  assert.deepEqual(asked(from), []);
});

test('the undo of the step that calls a flow holds for all that the flow did', async () => {
  const { id, from } = await travelled('covered');
  const r = await back(id);
  assert.deepEqual([r.status, r.json.current_step], [200, 'ask'], r.text);
  assert.deepEqual(asked(from), ['bring', 'wake']);
});

test('what a flow did may stay where the step that calls it says so', async () => {
  const { id, from } = await travelled('staying');
  const r = await back(id);
  assert.deepEqual([r.status, r.json.current_step], [200, 'ask'], r.text);
  assert.deepEqual(asked(from), ['wake']);
});

for (const flow of ['free', 'tried_again', 'given_up'])
  test(`nothing is named where each step of a branch says that it may stay: ${flow}`, async () => {
    const { id, from } = await travelled(flow);
    assert.ok(outside.requests.length >= 2);
    const r = await back(id);
    assert.deepEqual([r.status, r.json.current_step], [200, 'ask'], r.text);
    assert.deepEqual(asked(from), []);
  });

test('back goes over one answer, also that to a flow that has interrupted', async () => {
  const id = (await server.begin('trip', 'asked')).json.conversation_id;
  for (const said of ['one', 'hm', 'three', 'four']) await server.say(id, said);
  const steps = [];
  for (let i = 0; i < 4; i++) steps.push((await back(id)).json.current_step);
  assert.deepEqual(steps, ['d', 'c', 'b', 'a']);
});

test('an undo that takes back a whole flow is not run for a part of it', async () => {
  const { id } = await travelled('midway');
  await server.say(id, 'sure');
  const from = outside.requests.length;
  const r = await back(id);
  assert.equal(r.json.code, 'rollback.irreversible');
  assert.match(r.json.detail, /taken back: rest, half\/ship;/);
  const forced = await back(id, { force: true });
  assert.equal(forced.json.current_step, 'sure');
  assert.deepEqual(asked(from), []);
  await server.say(id, 'sure');
  assert.equal((await back(id, { steps: 2 })).json.current_step, 'ask');
  assert.deepEqual(asked(from), ['ship', 'bring', 'refund']);
});
