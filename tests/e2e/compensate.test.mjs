// compensate_on_failure with a real process: killed before, in and behind each call that takes back
// what a step did; the conversation has then failed, and nothing was taken back twice knowingly.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Outside, Place, Server } from './host.mjs';

const SYSTEM = (url) => `
local tm = require "tidemill"
local Step = tm.ConversationStep

local function send(ctx, name, more)
  local answer, err = ctx:http { method = "POST", url = "${url}/" .. name, json = more }
  if not answer then return nil, err end
  if answer.status ~= 200 then return nil, { code = "test.refused", message = name, retryable = answer.status == 503 } end
  return { id = answer.json.n }
end

local function act(name, next_step, undo, more)
  local step = more or {}
  step.step_id, step.step_type, step.next_steps = name, "action", { next_step }
  step.run = function(ctx) return send(ctx, name, { item = ctx.state.item }) end
  if undo then
    step.undo = function(ctx, output) return send(ctx, undo, { item = ctx.state.item, id = output.id }) end
  end
  return Step(step)
end

return tm.system { name = "shop", agents = {}, flows = { tm.ConversationFlow {
  flow_id = "order", start_step = "ask", compensate_on_failure = true,
  settings = { retry_delay = 0.01, enable_rollback = true }, steps = {
    Step { step_id = "ask", step_type = "user_input", prompt = "Item?", save_as = "item",
      input_schema = { type = "text" }, next_steps = { "pay" } },
    act("pay", "mail", "refund", { max_retries = 2 }),
    act("mail", "ship"),
    act("ship", "bill", "fetch_back", { max_retries = 2 }),
    act("bill", "ask", nil, { irreversible = false }),
  } } } }
`;

let place, outside, server;
const refused = new Map(); // path: [status, how often]
before(async () => {
  outside = await new Outside().start();
  const answer = outside.server.listeners('request')[0];
  outside.server.removeAllListeners('request');
  outside.server.on('request', (req, res) => {
    const left = refused.get(req.url);
    if (left && left[1]-- > 0) res.statusCode = left[0];
    answer(req, res);
  });
  place = new Place({ shipped: false });
  if (process.env.TEST_BACKEND === 'file') place.use_files();
  place.script('shop', SYSTEM(outside.url));
  server = await new Server(place).start();
});
after(async () => {
  await server?.kill();
  await outside?.stop();
  place?.remove();
});

const get = async (path) => (await server.get(`/v1/conversations/${path}`)).json;
const begin = async () => (await server.begin('shop', 'order')).json.conversation_id;
const asked = (from) => outside.requests.slice(from).map((r) => r.url.slice(1));
const refuse = (path, status, times) => refused.set(path, [status, times]);

async function check_failed(id, from, undone, failed) {
  const now = await get(id);
  assert.equal(now.status, 'failed');
  assert.deepEqual([now.error.code, now.error.step_id], ['test.refused', 'bill']);
  assert.deepEqual(now.error.compensation, { undone, failed, irreversible: ['mail'] });
  const steps = (await get(`${id}/steps`)).items.reverse();
  assert.deepEqual(steps.filter((s) => !s.undoes).map((s) => s.step_id), ['ask', 'pay', 'mail', 'ship', 'bill']);
  const done = steps.filter((s) => s.undoes && s.status === 'completed').map((s) => s.step_id);
  assert.equal(done.length, undone);
  assert.equal(new Set(steps.map((s) => s.seq)).size, steps.length);
  const bodies = outside.requests.slice(from).filter((r) => r.url === '/refund').map((r) => JSON.parse(r.body));
  for (const body of bodies) assert.equal(body.item, 'boots');
}

test('what the steps did is undone, the newest first', async () => {
  const id = await begin();
  const from = outside.requests.length;
  refuse('/bill', 500, 1);
  const turn = await server.say(id, 'boots');
  assert.equal(turn.status, 200, turn.text);
  assert.equal(turn.json.status, 'failed');
  assert.match(turn.json.error.message, /2 steps were undone; could not be taken back: mail/);
  assert.deepEqual(asked(from), ['pay', 'mail', 'ship', 'bill', 'fetch_back', 'refund']);
  await check_failed(id, from, 2, []);
  assert.equal((await server.say(id, 'more')).json.code, 'conversation.finished');
  const back = await server.post(`/v1/conversations/${id}/rollback`, { steps: 1 });
  assert.equal(back.json.code, 'rollback.compensated');
});

test('an undo is tried again, and left when it keeps failing', async () => {
  const id = await begin();
  const from = outside.requests.length;
  refuse('/bill', 500, 1);
  refuse('/fetch_back', 503, 9);
  refuse('/refund', 503, 1);
  await server.say(id, 'boots');
  refused.clear();
  assert.deepEqual(asked(from).slice(4),
    ['fetch_back', 'fetch_back', 'fetch_back', 'refund', 'refund']);
  await check_failed(id, from, 1, ['ship']);
});

test('a kill in the middle goes on where it was', async () => {
  for (const name of ['bill', 'fetch_back', 'refund']) {
    const id = await begin();
    const from = outside.requests.length;
    refuse('/bill', 500, name === 'bill' ? 2 : 1);
    let reached;
    const here = new Promise((done) => { reached = done; });
    outside.delay = (url) => {
      if (url !== `/${name}`) return 0;
      reached();
      return 300;
    };
    const lost = server.say(id, 'boots').catch(() => 'lost');
    await here;
    await server.kill();
    outside.delay = () => 0;
    await lost;
    server = await new Server(place).start();
    while ((await get(id)).status === 'active') await new Promise((done) => setTimeout(done, 10));
    const calls = ['pay', 'mail', 'ship', 'bill', 'fetch_back', 'refund'];
    calls.splice(calls.indexOf(name), 0, name);
    assert.deepEqual(asked(from), calls);
    const twice = outside.requests.slice(from).filter((r) => r.url === `/${name}`);
    assert.equal(twice[0].key, twice[1].key);
    await check_failed(id, from, 2, []);
  }
});

test('force leaves an undo that keeps failing', async () => {
  const id = await begin();
  const from = outside.requests.length;
  await server.say(id, 'boots');
  refuse('/fetch_back', 500, 9);
  const back = (more) => server.post(`/v1/conversations/${id}/rollback`, { steps: 1, force: true, ...more });
  const r = await back({});
  refused.clear();
  assert.equal(r.status, 200, r.text);
  assert.equal(r.json.status, 'waiting_input');
  assert.deepEqual(asked(from).slice(4), ['fetch_back', 'refund']);
});
