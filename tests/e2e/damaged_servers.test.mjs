// What a disk did to the files of a redis-server or a PostgreSQL while it was not running: what can
// still be read is served, what cannot is refused by name.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { appendFileSync, closeSync, openSync, readdirSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { crashSystem } from './crash_test_system.mjs';
import { Place, Server, wait } from './host.mjs';
import { OwnPostgres, sql } from './own_postgres.mjs';
import { OwnRedis } from './own_redis.mjs';

async function started(t, store) {
  const place = new Place({ shipped: false });
  t.after(() => store.remove());
  t.after(() => place.remove());
  place.settings.workflow_persistence = store.settings;
  place.save();
  place.script('crashy', crashSystem('http://127.0.0.1:1'));
  return new Server(place).start();
}

const begin = async (server) => (await server.begin('crashy', 'pure')).json.conversation_id;

async function say(server, id, item) {
  const r = await server.say(id, item, { 'idempotency-key': item });
  assert.equal(r.status, 200, r.text);
}

async function ready(server) {
  while ((await server.get('/readyz')).status !== 200) await wait(20);
}

test('a damaged page of a PostgreSQL', { timeout: 60000 }, async (t) => {
  const store = await new OwnPostgres().make();
  let server = await started(t, store);
  const bad = await begin(server), good = await begin(server);
  await say(server, good, 'one');
  for (let n = 0; n < 40; n++) await say(server, bad, `item-${n}`);
  const page = sql(store.url, 'SELECT max((ctid::text::point)[0])-1 FROM tidemill.journal'); // a full one
  assert.equal(sql(store.url, `SELECT count(*) FROM tidemill.journal WHERE conversation='${good}'
    AND (ctid::text::point)[0]=${page}`), '0');
  const file = sql(store.url, `CHECKPOINT; SELECT pg_relation_filepath('tidemill.journal')`);
  await server.stop();
  store.kill();
  const fd = openSync(join(store.dir, 'data', file), 'r+');
  writeSync(fd, Buffer.alloc(8192, 0xa5), 0, 8192, Number(page) * 8192);
  closeSync(fd);
  store.start();
  server = await new Server(server.place).start();
  const refused = await server.get(`/v1/conversations/${bad}/messages?limit=200`);
  assert.equal(refused.status, 500, refused.text);
  assert.equal(refused.json.code, 'store.damaged', refused.text);
  assert.equal(refused.json.conversation_id, bad);
  assert.equal((await server.get(`/v1/conversations/${good}/messages`)).status, 200);
  await say(server, good, 'two');
  assert.equal((await server.get(`/v1/conversations/${good}`)).json.state.count, 2);
  await server.stop();
});

test('a torn end of what a redis-server has appended', { timeout: 60000 }, async (t) => {
  const store = await new OwnRedis().start();
  const server = await started(t, store);
  const id = await begin(server);
  await say(server, id, 'one');
  await store.kill();
  const folder = join(store.disk.root, 'appendonlydir');
  const file = join(folder, readdirSync(folder).find((name) => name.endsWith('.incr.aof')));
  appendFileSync(file, '*3\r\n$4\r\nHSET\r\n$100\r\ntorn');
  await store.start();
  await ready(server);
  assert.equal((await server.get(`/v1/conversations/${id}`)).json.state.count, 1);
  await say(server, id, 'two');
  assert.equal((await server.get(`/v1/conversations/${id}`)).json.state.count, 2);
  await server.stop();
});

// The server refuses to start until it is mended by cutting the end off: what was acknowledged there
// is gone. A host that had it in memory does not go on from what is no more.
test('a damaged end of it that is cut off', { timeout: 60000 }, async (t) => {
  const store = await new OwnRedis().start();
  const server = await started(t, store);
  const cut = await begin(server), whole = await begin(server);
  await say(server, whole, 'one');
  await say(server, cut, 'one');
  const folder = join(store.disk.root, 'appendonlydir');
  const file = join(folder, readdirSync(folder).find((name) => name.endsWith('.incr.aof')));
  const before = statSync(file).size;
  await say(server, cut, 'two');
  await store.kill();
  const fd = openSync(file, 'r+');
  writeSync(fd, 'garbage', before);
  closeSync(fd);
  await store.start();
  assert.ok(!store.running, 'it refuses');
  const refused = await server.say(whole, 'two', { 'idempotency-key': 'two' });
  assert.equal(`${refused.status} ${refused.json.code}`, '503 store.away');
  const fixed = spawnSync('redis-check-aof', ['--fix', file], { input: 'y\n' });
  assert.equal(fixed.status, 0);
  await store.start();
  await ready(server);
  await say(server, whole, 'two');
  await say(server, cut, 'three'); // after what is there
  for (const id of [whole, cut])
    assert.equal((await server.get(`/v1/conversations/${id}`)).json.state.count, 2);
  await server.stop();
});
