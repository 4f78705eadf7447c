// Events where several hosts share a store, and where each tenant has a store of its own: whichever
// host sends them and whichever dies, there is no gap, and nothing comes before what was emitted earlier.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { test } from 'node:test';
import { Place, Server, wait } from './host.mjs';
import { database } from './own_postgres.mjs';

const SYSTEM = `local tm = require "tidemill"
return tm.system { name = "shop", agents = {}, flows = { tm.ConversationFlow {
  flow_id = "order", start_step = "ask", variables = { orders = 0 }, steps = {
    tm.ConversationStep { step_id = "ask", step_type = "user_input", prompt = "Order?",
      input_schema = { type = "text" }, next_steps = { "order" } },
    tm.ConversationStep { step_id = "order", step_type = "action", next_steps = { "ask" },
      run = function(ctx)
        ctx.state.orders = ctx.state.orders + 1
        ctx:emit("placed", ctx.state.orders)
        ctx:emit("billed", ctx.state.orders)
      end } } } } }`;

const TURNS = 3;
const ALL = Array.from({ length: 2 * TURNS }, (_, i) => `${i % 2 ? 'billed' : 'placed'} ${(i >> 1) + 1}`);

const stores = {
  postgres: () => {
    const { url, remove } = database();
    return { settings: { backend: 'postgres', postgres: { url } }, remove };
  },
  redis: () => {
    const [host, port] = process.env.TIDEMILL_TEST_REDIS.split(':');
    return { settings: { backend: 'redis', redis: { host, port: Number(port), db: 11 } }, remove() {} };
  },
  sqlite: () => ({ remove() {} }),
};

// What it hears, and `decide(json, n)`, which gives the status of each answer.
async function hook(t) {
  const heard = [];
  const it = { heard, decide: () => 204 };
  const server = createServer((req, res) => {
    let body = '';
    req.on('data', (d) => { body += d; });
    req.on('end', async () => {
      heard.push(JSON.parse(body));
      res.writeHead(await it.decide(heard.at(-1), heard.length - 1)).end();
    });
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  server.unref();
  t.after(() => { server.closeAllConnections(); server.close(); });
  it.url = `http://127.0.0.1:${server.address().port}/`;
  return it;
}

// The events of a conversation as they first came; repeats say the same.
function told(heard, id) {
  const seen = new Map();
  for (const one of heard.filter((h) => h.conversation_id === id)) {
    if (seen.has(one.id)) assert.deepEqual(one, seen.get(one.id));
    else seen.set(one.id, one);
  }
  return [...seen.values()].map((one) => `${one.event} ${one.data}`);
}

async function until(what, holds) {
  for (let i = 0; !(await holds()); i++) {
    if (i > 6000) throw new Error(`in vain: ${what}`);
    await wait(5);
  }
}

function place_of(t, kind, url, config = {}) {
  const store = stores[kind]();
  const place = new Place({ shipped: false,
    config: { webhooks: { url, secret: 's', timeout: '2s' }, ...config } });
  if (store.settings) place.settings.workflow_persistence = store.settings;
  place.save();
  place.script('shop', SYSTEM);
  t.after(() => { place.remove(); store.remove(); });
  return place;
}

for (const kind of ['postgres', 'redis']) {
  test(`two hosts, and one dies: ${kind}`, { timeout: 120000 }, async (t) => {
    const webhook = await hook(t);
    const place = place_of(t, kind, webhook.url);
    const [a, b] = [await new Server(place).start(), await new Server(place).start()];
    t.after(() => Promise.all([a.kill(), b.kill()]));
    const ids = [];
    for (let i = 0; i < 6; i++)
      ids.push((await (i % 2 ? a : b).begin('shop', 'order')).json.conversation_id);
    let all_said, killed = null;
    const said = new Promise((done) => { all_said = done; });
    const refused = new Set();
    webhook.decide = async (one) => {
      await Promise.race([said, wait(1000)]);
      if (one.conversation_id === ids[0] && refused.size === 0) {
        refused.add(one.id);
        return 500;
      }
      if (killed === null && one.data === TURNS) killed = b.kill(); // with what it has under way
      return 204;
    };
    for (let turn = 0; turn < TURNS; turn++) {
      for (let i = 0; i < ids.length; i++) {
        const answer = await ((i + turn) % 2 ? a : b).say(ids[i], 'a book');
        assert.equal(answer.json.status, 'waiting_input', answer.text);
      }
    }
    all_said();
    for (const id of ids) {
      await until(`all of ${id}`, () => told(webhook.heard, id).length === ALL.length);
      assert.deepEqual(told(webhook.heard, id), ALL);
    }
    assert.notEqual(killed, null);
    await until('an empty outbox', async () => {
      const { items } = (await a.get('/v1/outbox')).json;
      return !items.some((one) => ids.includes(one.conversation_id));
    });
    assert.equal((await a.stop()).code, 0);
  });
}

for (const kind of ['sqlite', 'postgres']) {
  test(`tenants with stores of their own: ${kind}`, { timeout: 120000 }, async (t) => {
    const webhook = await hook(t);
    const place = place_of(t, kind, webhook.url, { tenants: { isolation: true, open_stores: 1 } });
    let server = await new Server(place).start();
    t.after(() => server.kill());
    const tenants = ['ann', 'bob', 'cid'].map((name) => ({ name, as: { 'x-tidemill-tenant': name } }));
    webhook.decide = (one) => (one.tenant === 'bob' && one.data === 1 ? 410 : 204);
    for (const one of tenants) {
      one.id = (await server.begin('shop', 'order', {}, one.as)).json.conversation_id;
      for (let i = 1; i < TURNS; i++) await server.say(one.id, 'a book', one.as);
    }
    for (const one of tenants)
      await until(one.name, () => told(webhook.heard, one.id).length === ALL.length - 2);
    const outbox = async (one) => (await server.get('/v1/outbox', one.as)).json.items;
    await until('what bob has', async () => (await outbox(tenants[1])).length === 2);
    await until('ann has none', async () => (await outbox(tenants[0])).length === 0);

    webhook.decide = async () => { await wait(10000); return 204; };
    const before = webhook.heard.length;
    for (const one of tenants) await server.say(one.id, 'a book', one.as);
    await until('posts', () => webhook.heard.length > before);
    await server.kill();
    webhook.decide = () => 204;
    server = await new Server(place).start();
    for (const one of tenants) {
      await until(`${one.name} after a death`, () => told(webhook.heard, one.id).length === ALL.length);
      assert.deepEqual(told(webhook.heard, one.id), ALL);
      assert.ok(webhook.heard.every((h) => (h.conversation_id === one.id) === (h.tenant === one.name)));
    }
    const dead = (await outbox(tenants[1])).find((e) => e.status === 'dead');
    assert.equal((await server.post(`/v1/outbox/${dead.id}/retry`, {}, tenants[0].as)).status, 404);
    assert.equal((await server.post(`/v1/outbox/${dead.id}/retry`, {}, tenants[1].as)).status, 200);
    await until('what was tried again', async () => (await outbox(tenants[1])).length === 1);
    assert.equal((await server.stop()).code, 0);
  });
}
