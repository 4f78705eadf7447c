// One tenant tries to read, write, find or disturb what is another's in every way the API offers; with
// one store for all and with a store for each.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import test from 'node:test';
import { Place, root, Server, wait } from './host.mjs';

const SECRET = 'the-secret-of-tenant-a';
const A = { 'x-tidemill-tenant': 'a' }, B = { 'x-tidemill-tenant': 'b' };
const SCRIPT = `
local tm = require "tidemill"
return tm.system { name = "talk", agents = {}, flows = { tm.ConversationFlow {
  flow_id = "talk", name = "talk", pattern = tm.ConversationPattern.STEP_BY_STEP_PROCESS,
  start_step = "ask", end_steps = { "done" }, settings = { enable_rollback = true, max_rollback_steps = 5 },
  steps = {
    tm.ConversationStep { step_id = "ask", step_type = "user_input", prompt = "What?",
      input_schema = { type = "text" }, save_as = "what", next_steps = { "more" } },
    tm.ConversationStep { step_id = "more", step_type = "user_input", prompt = "More than {what}?",
      input_schema = { type = "text" }, save_as = "more", next_steps = { "done" } },
    tm.ConversationStep { step_id = "done", step_type = "action", run = function() return 1 end },
  } } } }
`;

const place = (isolation) => {
  const p = new Place({ shipped: false, config: { tenants: { isolation } } });
  p.script('talk', SCRIPT);
  return p;
};

for (const isolation of [false, true]) {
  test(`another tenant finds nothing, isolation ${isolation}`, async () => {
    const p = place(isolation);
    const s = await new Server(p).start();
    const key = { 'idempotency-key': 'one-key' };
    const mine = (await s.begin('talk', 'talk', { session_id: 's1', user_id: SECRET },
      { ...A, ...key })).json;
    await s.say(mine.conversation_id, SECRET, { ...A, ...key });
    const id = mine.conversation_id, at = `/v1/conversations/${id}`;
    const checkpoints = (await s.get(`${at}/checkpoints`, A)).json;

    const attempts = [
      await s.get(at, B), await s.get(`${at}/steps`, B), await s.get(`${at}/messages`, B),
      await s.get(`${at}/checkpoints`, B), await s.get(at), await s.get(`${at}/messages`),
      await s.say(id, 'x', B), await s.say(id, SECRET, { ...B, ...key }),
      await s.post(`${at}/rollback`, { steps: 1 }, B),
      ...(checkpoints.items.length > 0
        ? [await s.post(`${at}/rollback`, { checkpoint_id: checkpoints.items[0].checkpoint_id }, B)]
        : []),
    ];
    for (const r of attempts) {
      assert.equal(r.status, 404, r.text);
      assert.equal(r.json.code, 'conversation.not_found');
      assert.ok(!r.text.includes(SECRET), r.text);
    }
    for (const query of ['', '?session_id=s1', '?system=talk', '?flow_id=talk',
      '?status=waiting_input', `?cursor=${id}`, '?limit=200']) {
      const r = await s.get(`/v1/conversations${query}`, B);
      assert.deepEqual(r.json, { items: [], next: null }, query);
    }
    // The same key, session and body are another conversation for another tenant.
    const other = await s.begin('talk', 'talk', { session_id: 's1', user_id: SECRET },
      { ...B, ...key });
    assert.equal(other.status, 201);
    assert.notEqual(other.json.conversation_id, id);
    const list = (await s.get('/v1/conversations?session_id=s1', B)).json.items;
    assert.deepEqual(list.map((c) => c.conversation_id), [other.json.conversation_id]);
    // A page of one tenant's list cannot be gone on with by another.
    await s.begin('talk', 'talk', {}, A);
    const page = (await s.get('/v1/conversations?limit=1', A)).json;
    const stolen = (await s.get(`/v1/conversations?cursor=${page.next}`, B)).json;
    assert.ok(stolen.items.every((c) => c.conversation_id !== id));
    for (const path of ['/metrics', '/readyz', '/v1/systems']) {
      assert.ok(!(await s.get(path, B)).text.includes(SECRET), path);
    }
    assert.ok(!s.errors.includes(SECRET));
    const whole = (await s.get(`${at}/messages`, A)).text;
    assert.ok(whole.includes(SECRET));
    await s.stop();
    p.remove();
  });
}

// Asks twice, waits for a manager, then for the money; `tell` tells the webhook.
const DESK = `
local tm = require "tidemill"
local Step = tm.ConversationStep
local pay = tm.ConversationFlow { flow_id = "pay", start_step = "ask", end_steps = { "done" },
  settings = { enable_rollback = true, allow_step_skipping = true, allow_early_termination = true },
  steps = {
    Step { step_id = "ask", step_type = "user_input", prompt = "What?", save_as = "what",
      input_schema = { type = "text" }, next_steps = { "more" } },
    Step { step_id = "more", step_type = "user_input", prompt = "More than {what}?", save_as = "more",
      input_schema = { type = "text", required = false }, next_steps = { "approve" } },
    Step { step_id = "approve", step_type = "approval", role = "manager", prompt = "Pay {what}?",
      next_steps = { "money" } },
    Step { step_id = "money", step_type = "wait", event = "paid", next_steps = { "done" } },
    Step { step_id = "done", step_type = "action", run = function() return 1 end },
  } }
local tell = tm.ConversationFlow { flow_id = "tell", start_step = "ask", steps = {
  Step { step_id = "ask", step_type = "user_input", prompt = "What?", save_as = "what",
    input_schema = { type = "text" }, next_steps = { "tell" } },
  Step { step_id = "tell", step_type = "action", next_steps = { "ask" },
    run = function(ctx) ctx:emit("told", ctx.state.what) end } } }
return tm.system { agents = {}, flows = { pay, tell } }
`;
const MANAGER = { 'x-tidemill-role': 'manager' };
const NOBODY = '01990000-0000-7000-8000-000000000001';

// Every way to reach one conversation: in which state it is one, and what is asked for.
const C = '/v1/conversations';
const command = (name, more) => ({ way: `POST ${C}/{}/messages`, body: { command: name, ...more } });
const WAYS = [
  { way: `GET ${C}/{}` }, { way: `GET ${C}/{}/steps` }, { way: `GET ${C}/{}/messages` },
  { way: `GET ${C}/{}/checkpoints` }, { way: `POST ${C}/{}/checkpoints`, body: { name: 'here' } },
  { way: `POST ${C}/{}/messages`, body: { input: 'a word' } },
  command('back'), command('skip'), command('cancel'), command('restart'), command('help'),
  command('correct', { name: 'what', input: 'another' }),
  { way: `POST ${C}/{}/rollback`, body: { steps: 1 } },
  { way: `POST ${C}/{}/rollback`, body: (point) => ({ checkpoint_id: point }) },
  { way: `POST ${C}/{}/rollback`, body: { steps: 1, force: true } },
  { way: `POST ${C}/{}/fork`, body: {} },
  { way: `POST ${C}/{}/fork`, body: (point) => ({ checkpoint_id: point }) },
  { way: `POST ${C}/{}/approval`, state: 'approval', body: { approved: true }, headers: MANAGER },
  { way: `POST ${C}/{}/approval`, state: 'approval', body: { approved: false }, headers: MANAGER },
  { way: `POST ${C}/{}/event`, state: 'event', body: { name: 'paid', data: 1 } },
  { way: `POST ${C}/{}/pause` }, { way: `POST ${C}/{}/resume`, state: 'paused' },
  { way: `POST ${C}/{}/cancel` },
  { way: `POST ${C}/{}/migrate`, body: { dry_run: true } }, { way: `POST ${C}/{}/migrate` },
  { way: `GET ${C}/{}/events`, later: true },
  { way: `POST ${C}/{}/takeover`, later: true, body: { text: 'a word' } },
  { way: `POST ${C}/{}/handback`, later: true },
];
// What the other tests of this file do.
const OTHERS = [`POST ${C}`, `GET ${C}`, 'GET /v1/sessions', 'GET /v1/sessions/{}',
  'DELETE /v1/sessions/{}', 'GET /v1/outbox', 'POST /v1/outbox/{}/retry'];

test('no way that the API offers is left out here', () => {
  const table = readFileSync(join(root, 'host/api/routes.c'), 'utf8');
  const offered = [...table.matchAll(/\{"([A-Z]+)", (C ?)?(?:"([^"]*)")?,/g)]
    .map(([, method, c, path]) => `${method} ${c ? C : ''}${path ?? ''}`);
  assert.ok(offered.length > 25, offered.join());
  const open = /^GET \/(v1\/systems|livez|readyz|metrics|openapi)|^POST \/v1\/admin\//; // of no tenant
  assert.deepEqual([...new Set([...WAYS.map((w) => w.way), ...OTHERS])].sort(),
    offered.filter((way) => !open.test(way)).sort());
});

const send = (s, way, id, body, headers) => {
  const [method, path] = way.split(' ');
  return s.raw(method, path.replace('{}', id), method === 'POST' ? body ?? {} : undefined, headers);
};
// A conversation of tenant a that waits for what its state says.
const reach = async (s, state) => {
  const id = (await s.begin('desk', 'pay', { session_id: 's1' }, A)).json.conversation_id;
  const at = `${C}/${id}`;
  await s.say(id, SECRET, A);
  if (state === 'paused') await s.post(`${at}/pause`, {}, A);
  if (state === 'approval' || state === 'event') await s.say(id, 'more', A);
  if (state === 'event') await s.post(`${at}/approval`, { approved: true }, { ...A, ...MANAGER });
  return id;
};
const whole = async (s, id) => (await Promise.all(['', '/steps', '/messages', '/checkpoints'].map(
  (part) => s.get(`${C}/${id}${part}`, A)))).map((r) => r.text).join('\n');

for (const isolation of [false, true]) {
  test(`every way to a conversation of another tenant, isolation ${isolation}`, async () => {
    const p = place(isolation);
    p.script('desk', DESK);
    const s = await new Server(p).start();
    await s.begin('desk', 'pay', {}, B); // b has a store, and conversations
    for (const { way, state, body, headers, later } of WAYS) {
      const id = await reach(s, state), what = `${way} ${JSON.stringify(body)}`;
      const points = (await s.get(`${C}/${id}/checkpoints`, A)).json.items;
      const given = typeof body === 'function' ? body(points.at(-1).checkpoint_id) : body;
      const before = await whole(s, id);
      for (const who of [B, {}]) {
        const r = await send(s, way, id, given, { ...who, ...headers });
        const unknown = await send(s, way, NOBODY, given, { ...who, ...headers });
        assert.equal(r.status, later ? 501 : 404, `${what}: ${r.text}`);
        assert.equal(r.json.code, later ? 'route.unsupported' : 'conversation.not_found', what);
        assert.equal(r.text.replaceAll(id, NOBODY), unknown.text, `${what}: as if it were not there`);
        assert.ok(!r.text.includes(SECRET), what);
      }
      assert.equal(await whole(s, id), before, `${what}: it is as it was`);
      const own = await send(s, way, id, given, { ...A, ...headers });
      assert.ok(later || own.status < 300, `${what} is a way for its own tenant: ${own.text}`);
    }
    assert.ok(!s.errors.includes(SECRET));
    await s.stop();
    p.remove();
  });

  test(`sessions and events of another tenant, isolation ${isolation}`, async (t) => {
    const gone = createServer((req, res) => { // the webhook wants nothing: an event is given up
      req.on('end', () => res.writeHead(410).end());
      req.resume();
    });
    await new Promise((done) => gone.listen(0, '127.0.0.1', done));
    t.after(() => { gone.closeAllConnections(); gone.close(); });
    const p = place(isolation);
    p.settings.webhooks = { url: `http://127.0.0.1:${gone.address().port}/`, secret: 'signs' };
    p.save();
    p.script('desk', DESK);
    const s = await new Server(p).start();
    const { conversation_id: id } = (await s.begin('desk', 'tell',
      { session_id: 's1', user_id: SECRET }, A)).json;
    assert.equal((await s.say(id, SECRET, A)).json.status, 'waiting_input');
    const dead = async (who) => (await s.get('/v1/outbox?status=dead', who)).json.items;
    for (let i = 0; (await dead(A)).length === 0; i++) assert.ok(await wait(5) || i < 4000);
    const [event] = await dead(A);
    const read = async () => JSON.stringify([(await s.get('/v1/sessions/s1', A)).json,
      (await s.get('/v1/sessions', A)).json, await dead(A)]);
    const before = await read();
    for (const who of [B, {}]) {
      for (const path of ['/v1/sessions', '/v1/sessions?status=open', '/v1/outbox',
        '/v1/outbox?status=dead', '/v1/outbox?status=pending', '/v1/sessions?limit=200',
        `/v1/outbox?cursor=${event.id}`]) {
        const list = await s.get(path, who);
        assert.deepEqual([list.status, list.json], [200, { items: [], next: null }], path);
      }
      for (const [method, path] of [['GET', '/v1/sessions/s1'], ['DELETE', '/v1/sessions/s1'],
        ['POST', `/v1/outbox/${event.id}/retry`]]) {
        const r = await s.raw(method, path, method === 'POST' ? {} : undefined, who);
        assert.equal(r.status, 404, `${method} ${path}: ${r.text}`);
        assert.ok(!r.text.includes(SECRET), r.text);
      }
      // A session of that name is another one, and ends alone.
      const mine = (await s.begin('desk', 'tell', { session_id: 's1' }, who)).json;
      assert.ok(!(await s.get('/v1/sessions/s1', who)).text.includes(SECRET));
      assert.equal((await s.raw('DELETE', '/v1/sessions/s1', undefined, who)).status, 200);
      assert.equal((await s.get(`${C}/${mine.conversation_id}`, who)).json.status, 'cancelled');
      assert.equal(await read(), before);
    }
    assert.equal((await s.get(`${C}/${id}`, A)).json.status, 'waiting_input');
    assert.equal((await s.post(`/v1/outbox/${event.id}/retry`, {}, A)).status, 200);
    assert.equal((await s.raw('DELETE', '/v1/sessions/s1', undefined, A)).status, 200);
    assert.ok(!s.errors.includes(SECRET));
    await s.stop();
    p.remove();
  });
}

test('a store for each tenant: files apart, deadlines and conversations after a restart', async () => {
  const p = place(true);
  let s = await new Server(p).start();
  const ids = {};
  for (const tenant of ['a', 'b', 'c']) {
    const t = (await s.begin('talk', 'talk', {}, { 'x-tidemill-tenant': tenant })).json;
    ids[tenant] = t.conversation_id;
    await s.say(t.conversation_id, `words of ${tenant}`, { 'x-tidemill-tenant': tenant });
  }
  await s.stop();
  const folder = `${p.database}.tenants`;
  for (const tenant of ['a', 'b', 'c']) {
    const holders = [p.database, ...readdirSync(folder).map((f) => join(folder, f))]
      .filter((f) => existsSync(f) && readFileSync(f).includes(`words of ${tenant}`));
    assert.deepEqual(holders.map((f) => f.replace(/-wal$/, '')), [join(folder, `${tenant}.db`)]);
    assert.equal(statSync(join(folder, `${tenant}.db`)).mode & 0o077, 0);
  }
  s = await new Server(p).start();
  for (const tenant of ['a', 'b', 'c']) {
    const r = await s.say(ids[tenant], 'end', { 'x-tidemill-tenant': tenant });
    assert.equal(r.json.status, 'completed', r.text);
  }
  await s.stop();
  p.remove();
});

test('a tenant whose name cannot name a store is told so; reading makes none', async () => {
  const p = place(true);
  const s = await new Server(p).start();
  for (const tenant of ['../../etc', 'a/b', 'a b', '..', '.hidden', '*']) {
    const r = await s.begin('talk', 'talk', {}, { 'x-tidemill-tenant': tenant });
    assert.equal(r.status, 400, r.text);
    const list = await s.get('/v1/conversations', { 'x-tidemill-tenant': tenant });
    assert.ok(list.status === 400 || list.json.items.length === 0, list.text);
  }
  for (let i = 0; i < 50; i++) {
    await s.get('/v1/conversations', { 'x-tidemill-tenant': `stranger${i}` });
    await s.get(`/v1/conversations/01990000-0000-7000-8000-000000000001`,
      { 'x-tidemill-tenant': `stranger${i}` });
  }
  const folder = `${p.database}.tenants`;
  assert.ok(!existsSync(folder) || readdirSync(folder).length === 0);
  await s.stop();
  p.remove();
});

test('isolation is decided before there are conversations', async () => {
  const p = place(false);
  let s = await new Server(p).start();
  await s.begin('talk', 'talk', {}, A);
  await s.stop();
  const r = p.run(['serve'], { env: { AMBIVO_AGENTS_TENANTS_ISOLATION: 'true' } });
  assert.equal(r.code, 1);
  assert.match(r.err, /tenants\.isolation.*\[store\.isolation\]/s);
  s = await new Server(p).start();
  await s.stop();
  p.remove();
});

// More tenants than there is room for: the stores that nobody uses give way to the one that is used.
const serve_many = async (p, count, options) => {
  const s = await new Server(p).start([], {}, options);
  for (let i = 0; i < count; i++) {
    const tenant = { 'x-tidemill-tenant': `tenant${i}` };
    const begun = await Promise.all([1, 2, 3, 4].map(() => s.begin('talk', 'talk', {}, tenant)));
    for (const r of begun) assert.equal(r.status, 201, r.text);
    const id = begun[0].json.conversation_id;
    assert.equal((await s.get(`/v1/conversations/${id}/messages`, tenant)).status, 200);
  }
  assert.equal((await s.get('/readyz')).status, 200);
  await s.stop();
  assert.doesNotMatch(s.errors, /store\.(connections|descriptors)/);
};

test('more tenants than descriptors', async () => {
  const p = place(true);
  p.settings.tenants.open_stores = 1000;
  p.save();
  await serve_many(p, 40, { descriptors: 160 });
  p.remove();
});

const postgres = process.env.TIDEMILL_TEST_POSTGRES;
test('more tenants than connections', { skip: !postgres }, async () => {
  const p = place(true);
  const name = `crowd_${process.pid}`;
  const sql = (text) => {
    const r = spawnSync('psql', [postgres, '-qc', text], { encoding: 'utf8' });
    assert.equal(r.status, 0, r.stderr);
  };
  sql(`CREATE ROLE ${name} LOGIN PASSWORD 'x' CONNECTION LIMIT 24`);
  sql(`CREATE DATABASE ${name} OWNER ${name}`);
  const url = new URL(postgres);
  Object.assign(url, { username: name, password: 'x', pathname: name });
  p.settings.tenants.open_stores = 1000;
  p.settings.workflow_persistence = { backend: 'postgres', postgres: { url: url.href } };
  p.save();
  await serve_many(p, 12);
  sql(`DROP DATABASE ${name} WITH (FORCE)`);
  sql(`DROP ROLE ${name}`);
  p.remove();
});
