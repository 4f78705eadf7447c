// ctx:emit, end to end: a webhook that is signed, in order within a conversation, repeated under its
// own id when its host dies; what it refuses comes again later.
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';
import { Place, Server, wait } from './host.mjs';

const SECRET = 'a secret of the tests', OLDER = 'the one before';

const system = `
local tm = require "tidemill"

local function order(ctx)
  ctx:emit("order.placed", { item = ctx.input, list = tm.array {}, none = tm.null })
  ctx:emit("order.billed")
  ctx.state.orders = ctx.state.orders + 1
end

return tm.system { name = "shop", agents = {}, flows = { tm.ConversationFlow {
  flow_id = "order", start_step = "ask", pattern = tm.ConversationPattern.STEP_BY_STEP_PROCESS,
  variables = { orders = 0 },
  steps = {
    tm.ConversationStep { step_id = "ask", step_type = "user_input", prompt = "Order?",
      input_schema = { type = "text" }, save_as = "item", next_steps = { "order" } },
    tm.ConversationStep { step_id = "order", step_type = "action", next_steps = { "pack" },
      run = order },
    tm.ConversationStep { step_id = "pack", step_type = "action", next_steps = { "ask" },
      run = function(ctx) ctx:emit("order.packed", ctx.state.orders) end },
  },
} } }
`;

let webhook, heard, decide;

before(async () => {
  webhook = createServer((req, res) => {
    let body = '';
    req.on('data', (d) => { body += d; });
    req.on('end', async () => {
      const one = { headers: req.headers, body, json: JSON.parse(body) };
      heard.push(one);
      const status = await decide(one, heard.length - 1);
      res.writeHead(status).end('nobody reads this '.repeat(1000));
    });
  });
  await new Promise((done) => webhook.listen(0, '127.0.0.1', done));
  webhook.unref();
});
after(() => {
  webhook.closeAllConnections();
  webhook.close();
});

function placed(t, config = {}) {
  heard = [];
  decide = () => 204;
  const place = new Place({ shipped: false, config: {
    webhooks: { url: `http://127.0.0.1:${webhook.address().port}/hook`, secret: SECRET,
      previous_secret: OLDER, timeout: '20s', ...config.webhooks },
    ...(config.store ? { workflow_persistence: config.store } : {}),
  } });
  place.script('shop', system);
  t.after(() => place.remove());
  return place;
}

const until = async (what, holds) => {
  for (let i = 0; !holds(); i++) {
    if (i > 4000) throw new Error(`${what}: ${JSON.stringify(heard.map((h) => h.json), null, 1)}`);
    await wait(5);
  }
};

const hmac = (secret, text) => createHmac('sha256', secret).update(text).digest('hex');

// What one conversation told, without repeats, which must come under the same id and be the same.
function told(id) {
  const seen = new Map();
  for (const one of heard.filter((h) => h.json.conversation_id === id)) {
    const known = seen.get(one.json.id);
    if (known) assert.equal(one.body, known.body, 'a repeat says the same');
    else seen.set(one.json.id, one);
  }
  return [...seen.values()];
}

const names = (id) => told(id).map((h) => h.json.event);
const THREE = ['order.placed', 'order.billed', 'order.packed'];

test('an event is signed, and says where it is from', { timeout: 60000 }, async (t) => {
  const server = await new Server(placed(t)).start();
  t.after(() => server.kill());
  const id = (await server.begin('shop', 'order')).json.conversation_id;
  assert.equal((await server.say(id, 'a book')).json.status, 'waiting_input');
  await until('three events', () => heard.length === 3);
  assert.deepEqual(names(id), THREE);
  for (const { headers, body, json } of heard) {
    const time = headers['tidemill-timestamp'];
    assert.ok(Math.abs(Date.now() / 1000 - Number(time)) < 300);
    assert.equal(headers['tidemill-signature'],
      `v1=${hmac(SECRET, `${time}.${body}`)},v1=${hmac(OLDER, `${time}.${body}`)}`);
    assert.equal(headers['tidemill-event'], json.event);
    assert.equal(headers['tidemill-event-id'], json.id);
    assert.equal(headers['tidemill-attempt'], '1');
    assert.equal(headers['content-type'], 'application/json');
    assert.deepEqual([json.tenant, json.system, json.flow_id], ['default', 'shop', 'order']);
    const stored = Number(new RegExp(`^${id}:\\d+:\\d+:(\\d+)$`).exec(json.id)[1]);
    assert.ok(json.created > Date.now() - 60000 && json.created <= stored && stored <= Date.now());
  }
  assert.match(heard[0].body, /"data":\{"item":"a book","list":\[\],"none":null\}/);
  assert.equal(heard[1].json.data, null);
  assert.deepEqual([heard[2].json.data, heard[2].json.step_id], [1, 'pack']);
  assert.equal((await server.stop()).code, 0);
});

test('what is refused comes again, and holds up its own conversation only', { timeout: 60000 },
  async (t) => {
    const server = await new Server(placed(t)).start();
    t.after(() => server.kill());
    const ids = [];
    for (let i = 0; i < 2; i++) ids.push((await server.begin('shop', 'order')).json.conversation_id);
    let refusals = 1;
    decide = (one) => (one.json.conversation_id === ids[0] && refusals-- > 0 ? 500 : 200);
    for (const id of ids) await server.say(id, 'a book');
    await until('the other', () => told(ids[1]).length === 3);
    assert.equal(told(ids[0]).length, 1);
    await until('the first', () => told(ids[0]).length === 3);
    assert.deepEqual(names(ids[0]), THREE);
    const first = heard.filter((h) => h.json.conversation_id === ids[0]);
    assert.deepEqual(first.map((h) => h.headers['tidemill-attempt']), ['1', '2', '1', '1']);
    assert.equal((await server.stop()).code, 0);
  });

test('what is gone for good lets the next one go', { timeout: 60000 }, async (t) => {
  const server = await new Server(placed(t)).start();
  t.after(() => server.kill());
  decide = (one) => (one.json.event === 'order.billed' ? 410 : 200);
  const id = (await server.begin('shop', 'order')).json.conversation_id;
  await server.say(id, 'a book');
  await until('three events', () => heard.length === 3);
  assert.deepEqual(names(id), THREE);
  await server.stop();
  assert.match(server.errors, /an event was given up/);
  assert.match(server.errors, /the webhook answered 410/);
});

test('what was given up is listed and tried again, by HTTP and in the terminal', { timeout: 60000 },
  async (t) => {
    const place = placed(t);
    const server = await new Server(place).start();
    t.after(() => server.kill());
    decide = (one) => (one.json.event === 'order.billed' ? 410 : 200);
    const id = (await server.begin('shop', 'order')).json.conversation_id;
    await server.say(id, 'a book');
    await server.say(id, 'a pen');
    await until('six events', () => heard.length === 6);
    const dead = async (query = '') => (await server.get(`/v1/outbox?status=dead${query}`)).json;
    for (let i = 0; (await dead()).items.length < 2; i++) assert.ok(await wait(5) || i < 4000);
    const [newer, older] = (await dead()).items;
    assert.deepEqual({ ...older, created: 0, dead_at: 0 }, { id: heard[1].json.id,
      event: 'order.billed', conversation_id: id, status: 'dead', attempts: 1, created: 0,
      next_at: null, dead_at: 0, last_error: 'the webhook answered 410' });
    assert.ok(older.dead_at >= older.created && newer.created >= older.created);
    const page = await dead('&limit=1');
    assert.deepEqual([page.items, page.next], [[newer], newer.id]);
    assert.deepEqual(await dead(`&limit=1&cursor=${page.next}`), { items: [older], next: null });
    const pending = async () => (await server.get('/v1/outbox?status=pending')).json.items;
    for (let i = 0; (await pending()).length > 0; i++) assert.ok(await wait(5) || i < 4000);
    const other = { 'x-tidemill-tenant': 'other' };
    assert.deepEqual((await server.get('/v1/outbox', other)).json.items, []);
    assert.equal((await server.get('/v1/outbox?cursor=zz')).json.code, 'cursor.invalid');
    assert.equal((await server.get('/v1/outbox?status=odd')).json.code, 'request.query');

    const again = (one, headers) => server.post(`/v1/outbox/${one}/retry`, {}, headers);
    assert.equal((await again(older.id, other)).json.code, 'outbox.not_found');
    assert.equal((await again('nothing')).status, 404);
    const doctor = place.run(['doctor']);
    assert.match(doctor.out, /^warning: events: given up: 2; see `tidemill outbox list --status dead`/m);
    assert.doesNotMatch(doctor.out, /wait to be delivered/);
    heard = [];
    decide = () => 500;
    const retried = await again(older.id);
    assert.deepEqual([retried.status, retried.json.status, retried.json.attempts, retried.json.id],
      [200, 'pending', 0, older.id]);
    assert.ok(retried.json.next_at > 0);
    await until('the older one', () => heard.length === 1);
    assert.deepEqual([heard[0].json.id, heard[0].headers['tidemill-attempt']], [older.id, '1']);
    const refused = await again(older.id);
    assert.deepEqual([refused.status, refused.json.code], [409, 'outbox.pending']);

    const { webhooks } = place.settings;
    delete place.settings.webhooks;
    place.save();
    assert.match(place.run(['doctor']).out, /^warning: events: 1 wait to be delivered, and webhooks.url is not set/m);
    place.settings.webhooks = webhooks;
    place.save();

    const listed = place.run(['outbox', 'list', '--status', 'dead']);
    assert.match(listed.out, new RegExp(`^${newer.id}\n    order.billed, 1 attempt, given up `),
      listed.err);
    assert.match(listed.out, /the webhook answered 410\n$/);
    assert.equal(place.run(['outbox', 'retry', `${id}:99:0`]).code, 1);
    assert.equal(place.run(['outbox', 'list', '--status', 'odd']).code, 2);
    decide = () => 200;
    const run = place.run(['outbox', 'retry', newer.id, '--json']);
    assert.equal(JSON.parse(run.out).id, newer.id, run.err);
    await until('both', () => heard.some((h) => h.json.id === newer.id));
    await until('an empty list', () => heard.length >= 3);
    for (let i = 0; (await server.get('/v1/outbox')).json.items.length > 0; i++)
      assert.ok(await wait(5) || i < 4000);
    assert.equal((await server.stop()).code, 0);
  });

// The host dies at every post in turn, before its answer and behind it.
const stores = { sqlite: undefined, file: 'files' };

for (const [backend, kind] of Object.entries(stores)) {
  test(`killed at every post: ${backend}`, { timeout: 120000 }, async (t) => {
    const place = placed(t, { webhooks: { timeout: '200ms' } }); // a lease of 600
    if (kind === 'files') place.use_files();
    let server = await new Server(place).start();
    t.after(() => server.kill());
    for (let at = 0; at < 6; at++) {
      heard = [];
      const id = (await server.begin('shop', 'order')).json.conversation_id;
      let dead = false;
      decide = async (one, n) => {
        if (n === at >> 1) {
          decide = () => 200;
          const dying = server.kill();
          if (at % 2 === 0) await dying; // nobody hears the answer
          dying.then(() => { dead = true; });
        }
        return 200;
      };
      await server.say(id, 'a book').catch(() => null);
      await until('a death', () => dead);
      server = await new Server(place).start();
      await until('three events', () => told(id).length === 3);
      assert.deepEqual(names(id), THREE, JSON.stringify(heard.map((h) => h.json), null, 1));
      const state = (await server.get(`/v1/conversations/${id}`)).json.state;
      assert.equal(state.orders, 1);
    }
    assert.equal((await server.stop()).code, 0);
  });
}

test('what nobody is to be told of any more is given up by retention', async (t) => {
  const place = placed(t, { webhooks: { timeout: '200ms' } });
  decide = () => 500;
  const server = await new Server(place).start();
  t.after(() => server.kill());
  const id = (await server.begin('shop', 'order')).json.conversation_id;
  await server.say(id, 'a book');
  await until('an attempt', () => heard.length > 0);
  assert.equal((await server.stop()).code, 0);
  const listed = (status) => JSON.parse(place.run(['outbox', 'list', '--json', '--status', status]).out).items;
  delete place.settings.webhooks;
  place.save();
  place.run(['purge']);
  assert.equal(listed('dead').length, 0); // it may still be tried: a day has not gone by
  const waiting = listed('pending').length;
  assert.ok(waiting > 1);
  place.settings.webhooks = { give_up_after: 0 };
  place.save();
  const due = Math.max(...listed('pending').map((one) => one.next_at ?? 0));
  for (let i = 0; Date.now() <= due + 1; i++) assert.ok(await wait(5) || i < 6000); // its next attempt
  place.run(['purge']);
  assert.equal(listed('pending').length, 0);
  assert.deepEqual(listed('dead').map((one) => one.last_error),
    Array(waiting).fill('nobody is to be told: webhooks.url is not set'));
});

test('without a webhook the step fails, and says what to set', async (t) => {
  const place = placed(t);
  delete place.settings.webhooks;
  place.save();
  const server = await new Server(place).start();
  t.after(() => server.kill());
  const id = (await server.begin('shop', 'order')).json.conversation_id;
  await server.say(id, 'a book');
  const now = await server.get(`/v1/conversations/${id}`);
  assert.equal(now.json.status, 'failed');
  assert.match(now.text, /emit\.no_webhook/);
  assert.match(now.text, /set webhooks\.url and webhooks\.secret/);
  await server.stop();
});
