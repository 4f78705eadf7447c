// Hosts on PostgreSQL: the server is killed under load, several hosts serve the same conversations
// and are killed. Nothing acknowledged is lost, nothing is doubled, and service resumes by itself.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crashSystem } from './crash_test_system.mjs';
import { Outside, Place, Server, wait } from './host.mjs';
import { database, OwnPostgres, sql } from './own_postgres.mjs';

const NIGHTLY = process.env.TIDEMILL_NIGHTLY === '1';

const placeOn = (url, outside = 'http://127.0.0.1:1') => {
  const place = new Place({ shipped: false, config: {
    server: { lease: 1 }, workflow_persistence: { backend: 'postgres', postgres: { url } } } });
  delete place.settings.workflow_persistence.sqlite;
  place.save();
  place.script('crashy', crashSystem(outside));
  return place;
};

const replies = {
  pure: (item) => [`noted ${item}`],
  loop: (item) => [`a for ${item}`, `b for ${item}`],
};

// Asks one of the hosts after another until one answers.
async function insist(hosts, request, statuses) {
  for (;;) {
    const host = hosts[Math.floor(Math.random() * hosts.length)];
    try {
      await host.up;
      const r = await request(host.server);
      statuses?.add(`${r.status} ${r.json?.code ?? ''}`);
      if (r.status !== 503) return r;
    } catch { /* it died under us */ }
    await wait(5);
  }
}

// Takes a conversation from turn to turn, each on any host, until `over` says so.
async function talk(hosts, i, flow, over, statuses) {
  const log = { flow, items: [] };
  const begun = await insist(hosts, (s) => s.begin('crashy', flow, { session_id: `s${i}` },
    { 'idempotency-key': `start-${i}` }), statuses);
  assert.equal(begun.status, 201, begun.text);
  log.id = begun.json.conversation_id;
  for (let n = 1; !over(log); n++) {
    const item = `item ${i}.${n}`;
    const r = await insist(hosts, (s) => s.say(log.id, item, { 'idempotency-key': `m-${i}-${n}` }),
      statuses);
    assert.equal(r.status, 200, r.text);
    assert.deepEqual(r.json.replies.map((one) => one.text), replies[flow](item));
    log.items.push(item);
  }
  return log;
}

async function every(server, id, what) {
  const items = [];
  for (let cursor = null; ;) {
    const r = await server.get(`/v1/conversations/${id}/${what}?limit=200`
      + (cursor ? `&cursor=${encodeURIComponent(cursor)}` : ''));
    assert.equal(r.status, 200, r.text);
    items.push(...r.json.items);
    cursor = r.json.next;
    if (!cursor) return items.reverse();
  }
}

// Everything that was acknowledged is there, once and in order, and nothing else is.
async function check(server, log) {
  const now = await server.get(`/v1/conversations/${log.id}`);
  assert.equal(now.json.status, 'waiting_input');
  assert.equal(now.json.state.count, log.items.length, log.id);
  const said = (await every(server, log.id, 'messages')).filter((m) => m.role === 'user');
  assert.deepEqual(said.map((m) => m.text), log.items);
  const tallies = (await every(server, log.id, 'steps')).filter((s) => s.step_id === 'tally');
  assert.equal(tallies.length, log.items.length);
}

async function until(what, holds) {
  for (let i = 0; i < 6000; i++) {
    if (await holds()) return;
    await wait(10);
  }
  assert.fail(`never: ${what}`);
}

test('the server is killed and started again under load', async (t) => {
  const postgres = await new OwnPostgres().make();
  const place = placeOn(postgres.url);
  const server = await new Server(place).start();
  const hosts = [{ server, up: Promise.resolve() }];
  const statuses = new Set();
  let over = false;
  const talks = Promise.all(Array.from({ length: 8 }, (_, i) =>
    talk(hosts, i, 'pure', () => over, statuses)));
  for (let kill = 0; kill < (NIGHTLY ? 20 : 3); kill++) {
    await wait(300);
    postgres.kill();
    await until('not ready', async () => (await server.get('/readyz')).status === 503);
    postgres.start();
    await until('ready', async () => (await server.get('/readyz')).status === 200);
  }
  await wait(200);
  over = true;
  const logs = await talks;
  for (const log of logs) await check(server, log);
  const turns = logs.reduce((n, l) => n + l.items.length, 0);
  t.diagnostic(`${turns} turns; ${[...statuses].sort().join(', ')}`);
  assert.ok(logs.every((log) => log.items.length > 0));
  for (const status of statuses)
    assert.match(status, /^(200 |201 |503 store\.(away|busy|connections))$/);
  assert.match(server.errors, /cannot be written.*store\.away/);
  assert.doesNotMatch(server.errors, /left behind/);
  assert.equal((await server.stop()).code, 0);
  postgres.remove();
  place.remove();
});

test('a host that stops does not wait for a server that is silent', async () => {
  const postgres = await new OwnPostgres().make();
  const place = placeOn(postgres.url);
  const server = await new Server(place).start();
  const begun = await server.begin('crashy', 'pure');
  postgres.signal('SIGSTOP');
  const said = server.say(begun.json.conversation_id, 'a', { 'idempotency-key': 'k' });
  await wait(200);
  server.process.kill('SIGTERM');
  const r = await said.catch(() => null);
  if (r !== null) assert.equal(r.status, 503, r.text);
  assert.notEqual((await server.ended).signal, 'SIGKILL');
  postgres.signal('SIGCONT');
  const again = await new Server(place).start();
  const repeated = await again.say(begun.json.conversation_id, 'a', { 'idempotency-key': 'k' });
  assert.equal(repeated.status, 200, repeated.text);
  await check(again, { id: begun.json.conversation_id, items: ['a'] });
  await again.stop();
  postgres.remove();
  place.remove();
});

const TURNS = NIGHTLY ? 100000 : 1500;

test(`three hosts, ${TURNS} turns, kills at random`, { timeout: NIGHTLY ? 3600000 : 300000 }, async (t) => {
  const db = database();
  const outside = await new Outside(() => Math.random() * 10).start();
  const place = placeOn(db.url, outside.url);
  const hosts = await Promise.all([0, 1, 2].map(async () =>
    ({ server: await new Server(place).start(), up: Promise.resolve() })));
  let turns = 0, over = false;
  const done = () => turns++ >= TURNS;
  const statuses = new Set();
  const talks = Promise.all(Array.from({ length: 24 }, (_, i) =>
    talk(hosts, i, i % 4 === 0 ? 'loop' : 'pure', done, statuses))).finally(() => { over = true; });
  let kills = 0;
  for (; !over; kills++) {
    await wait(100 + Math.random() * 400);
    const host = hosts[kills % 3];
    let up;
    host.up = new Promise((ok) => { up = ok; });
    await host.server.kill();
    host.server = await new Server(place).start();
    up();
  }
  const logs = await talks;
  const requests = logs.reduce((n, l) => n + l.items.length, 0);
  for (const [i, log] of logs.entries()) await check(hosts[i % 3].server, log);
  const list = await hosts[0].server.get('/v1/conversations?system=crashy&limit=200');
  assert.equal(list.json.items.length, 24);
  t.diagnostic(`${requests} turns, ${kills} kills; ${[...statuses].sort().join(', ')}`);
  assert.ok(kills > 0);
  for (const { server } of hosts) assert.equal((await server.stop()).code, 0);
  assert.equal(sql(db.url, 'SELECT count(*) FROM tidemill.heads'), '24');
  await outside.stop();
  db.remove();
  place.remove();
});
