// Rollback and fork with a real process: undo functions that call outside, killed in their midst,
// failing and tried again; the state and the prompt are then as they were.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Outside, Place, Server } from './host.mjs';

const SYSTEM = (url) => `
local tm = require "tidemill"
local Step = tm.ConversationStep

local function send(ctx, name, more)
  local answer, err = ctx:http { method = "POST", url = "${url}/" .. name, json = more }
  if not answer then return nil, err end
  if answer.status ~= 200 then return nil, { code = "test.refused", message = name, retryable = false } end
  return { id = answer.json.n }
end

local function act(name, next_step, undo, more)
  local step = more or {}
  step.step_id, step.step_type, step.next_steps = name, "action", { next_step }
  step.run = function(ctx)
    return ctx:once(name, function() return send(ctx, name, { item = ctx.state.item }) end)
  end
  if undo then
    step.undo = function(ctx, output)
      return send(ctx, undo, { item = ctx.state.item, id = output.id })
    end
  end
  return Step(step)
end

return tm.system { name = "shop", agents = {}, flows = { tm.ConversationFlow {
  flow_id = "order", start_step = "ask", settings = { enable_rollback = true, checkpoint_interval = 0 },
  variables = { count = 0 }, steps = {
    Step { step_id = "ask", step_type = "user_input", prompt = "Item {count}?", save_as = "item",
      input_schema = { type = "text" }, next_steps = { "pay" } },
    act("pay", "ship", "refund", { max_retries = 2, retry_delay = 0 }),
    act("ship", "mail", "fetch_back", { max_retries = 2, retry_delay = 0 }),
    act("mail", "tally", nil, { irreversible = false }),
    Step { step_id = "tally", step_type = "action", next_steps = { "sure" },
      run = function(ctx) ctx.state.count = ctx.state.count + 1 end },
    Step { step_id = "sure", step_type = "decision", next_steps = { "named", "ask" },
      condition = function(ctx) return ctx.state.item == "named" and "yes" or "no" end,
      conditional_logic = { yes = "named", no = "ask" } },
    Step { step_id = "named", step_type = "user_input", prompt = "Named?", checkpoint = "named",
      save_as = "item", input_schema = { type = "text" }, next_steps = { "ask" } },
  } } } }
`;

let place, outside, server;
before(async () => {
  outside = await new Outside().start();
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

const read = async (id) => (await server.get(`/v1/conversations/${id}`)).json;
const back = (id, steps) => server.post(`/v1/conversations/${id}/rollback`, { steps });
const same = (now, then) => {
  for (const part of ['status', 'current_step', 'state', 'prompt'])
    assert.deepEqual(now[part], then[part]);
};
const asked = (id, from) => outside.requests.slice(from).map((r) => r.url.slice(1));

async function ordered() {
  const id = (await server.begin('shop', 'order')).json.conversation_id;
  const then = await read(id);
  assert.equal((await server.say(id, 'boots')).status, 200);
  return { id, then, from: outside.requests.length };
}

test('undo functions run the newest first, and everything is as it was', async () => {
  const { id, then, from } = await ordered();
  const paid = outside.requests[from - 3];
  const r = await back(id, 1);
  assert.equal(r.status, 200, r.text);
  same(await read(id), then);
  assert.deepEqual(asked(id, from), ['fetch_back', 'refund']);
  assert.equal(JSON.parse(outside.requests[from].body).item, 'boots');
  assert.equal((await server.say(id, 'boots')).status, 200);
  const again = outside.requests[from + 2]; // the same once more is no repeat of what was undone
  assert.equal(again.url, '/pay');
  assert.equal(again.body, paid.body);
  assert.notEqual(again.key, paid.key);
  const steps = (await server.get(`/v1/conversations/${id}/steps`)).json.items;
  assert.deepEqual(steps.filter((s) => s.undoes).map((s) => s.step_id), ['pay', 'ship']);
  assert.equal(new Set(steps.map((s) => s.seq)).size, steps.length);
});

test('a kill in their midst repeats nothing that was recorded', async () => {
  for (const name of ['fetch_back', 'refund']) {
    const { id, then, from } = await ordered();
    let reached;
    const here = new Promise((done) => { reached = done; });
    outside.delay = (url) => {
      if (url !== `/${name}`) return 0;
      reached();
      return 300;
    };
    const lost = back(id, 1).catch(() => 'lost');
    await here;
    await server.kill();
    outside.delay = () => 0;
    await lost;
    server = await new Server(place).start();
    for (;;) {
      const now = await read(id);
      if (now.status !== 'active') break;
      await new Promise((done) => setTimeout(done, 10));
    }
    same(await read(id), then);
    const calls = asked(id, from);
    assert.deepEqual(calls, name === 'refund' ? ['fetch_back', 'refund', 'refund']
      : ['fetch_back', 'fetch_back', 'refund']);
    const repeated = outside.requests.slice(from).filter((r) => r.url === `/${name}`);
    assert.equal(repeated[0].key, repeated[1].key);
  }
});

test('one that fails for good leaves the conversation where it was', async () => {
  const { id, then, from } = await ordered();
  const now = await read(id);
  outside.server.removeAllListeners('request');
  outside.server.on('request', (req, res) => {
    outside.requests.push({ url: req.url, key: req.headers['idempotency-key'] });
    req.resume();
    res.statusCode = req.url === '/refund' ? 500 : 200;
    res.setHeader('content-type', 'application/json');
    res.end('{"n":1}');
  });
  const r = await back(id, 1);
  assert.equal(r.status, 409, r.text);
  assert.equal(r.json.code, 'rollback.undo_failed');
  assert.equal(r.json.step_id, 'pay');
  same(await read(id), now);
  assert.equal((await back(id, 1)).status, 409);
  assert.deepEqual(asked(id, from), ['fetch_back', 'refund', 'refund']);
  outside.server.removeAllListeners('request');
  outside.server.on('request', (req, res) => {
    outside.requests.push({ url: req.url });
    req.resume();
    res.setHeader('content-type', 'application/json');
    res.end('{"n":1}');
  });
  assert.equal((await back(id, 1)).status, 200);
  assert.deepEqual(asked(id, from), ['fetch_back', 'refund', 'refund', 'refund']);
  same(await read(id), then);
});

test('a fork goes on by itself, by the API and the command line', async () => {
  const { id } = await ordered();
  assert.equal((await server.say(id, 'boots')).status, 200);
  const now = await read(id);
  const r = await server.post(`/v1/conversations/${id}/fork`, {}, { 'Idempotency-Key': 'f' });
  assert.equal(r.status, 201, r.text);
  assert.equal((await server.post(`/v1/conversations/${id}/fork`, {},
    { 'Idempotency-Key': 'f' })).text, r.text);
  const other = r.json.conversation_id;
  same(await read(other), now);
  assert.equal((await server.say(other, 'hat')).status, 200);
  assert.equal((await read(other)).state.item, 'hat');
  assert.equal((await read(id)).state.item, 'boots');
  const said = async (one) => (await server.get(`/v1/conversations/${one}/messages?limit=200`))
    .json.items.filter((m) => m.role === 'user').map((m) => m.text);
  assert.deepEqual(await said(other), ['hat', 'boots', 'boots']);
  assert.deepEqual(await said(id), ['boots', 'boots']);
  const points = (await server.get(`/v1/conversations/${id}/checkpoints`)).json.items;
  const first = points[points.length - 1].checkpoint_id;
  const cli = place.run(['conversations', 'fork', id, '--checkpoint', first, '--json']);
  assert.equal(cli.code, 0, cli.err);
  assert.equal((await read(JSON.parse(cli.out).conversation_id)).state.count, 1);
  assert.deepEqual((await read(other)).forked_from,
    { conversation_id: id, revision: now.revision });
  const [made, ...rest] = place.run(['conversations', 'fork', other]).out.split('\n');
  assert.equal((await read(made)).forked_from.conversation_id, other);
  assert.equal(rest[0], (await read(made)).prompt.text);
  for (const list of [['list'], ['show', made]])
    assert.match(place.run(['conversations', ...list]).out, new RegExp(`${other} at\\s+revision \\d+`));
});

test('checkpoints have names: by their step, by the API and the command line', async () => {
  const { id } = await ordered();
  const url = `/v1/conversations/${id}`;
  const to = (name) => server.post(`${url}/rollback`, { checkpoint_id: name });
  const listed = async () => (await server.get(`${url}/checkpoints`)).json.items
    .filter((item) => item.name).map((item) => item.name);
  const then = await read(id);
  const r = await server.post(`${url}/checkpoints`, { name: 'mine' }, { 'Idempotency-Key': 'm' });
  assert.equal(r.status, 201, r.text);
  assert.deepEqual(r.json.prompt, then.prompt);
  assert.equal((await server.post(`${url}/checkpoints`, { name: 'mine' },
    { 'Idempotency-Key': 'm' })).text, r.text);
  assert.equal((await server.say(id, 'named')).json.prompt.text, 'Named?');
  assert.equal((await server.say(id, 'more')).status, 200);
  assert.equal(place.run(['conversations', 'checkpoint', id, 'late']).code, 0);
  assert.match(place.run(['conversations', 'checkpoints', id]).out, /\n\d+ +named +\d+ +named +2/);
  assert.deepEqual(await listed(), ['late', 'named', 'mine']);
  await server.kill();
  server = await new Server(place).start();
  const fork = await server.post(`${url}/fork`, { checkpoint_id: 'named' });
  assert.equal(fork.json.prompt.text, 'Named?');
  assert.equal(place.run(['conversations', 'rollback', id, '--checkpoint', 'named']).out, 'Named?\n');
  assert.equal((await to('late')).json.code, 'checkpoint.not_found');
  assert.equal((await to('mine')).status, 200);
  same(await read(id), { ...then, revision: r.json.revision });
  assert.deepEqual(await listed(), ['mine']);
  assert.equal((await server.post(`${url}/rollback`, { steps: 1 })).status, 200);
  assert.deepEqual(await listed(), []);
});
