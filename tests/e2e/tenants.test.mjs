// One tenant tries to read, write, find or disturb what is another's in every way the API offers; with
// one store for all and with a store for each.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { Place, Server } from './host.mjs';

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
