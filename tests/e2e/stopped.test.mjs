// Two hosts on one store, of which one is stopped (SIGSTOP) and continued: past its lease, and in the
// middle of a commit, where it holds the locks of a file. It overwrites nothing of what the other
// did, and every client gets an answer that is true.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { test } from 'node:test';
import { Disk } from '../shim/disk.mjs';
import { crashSystem } from './crash_test_system.mjs';
import { Outside, Place, Server, wait } from './host.mjs';
import { database } from './own_postgres.mjs';

const files = {
  sqlite: (root) => ({ sqlite: { database_path: join(root, 'workflow.db') } }),
  file: (root) => ({ file: { storage_directory: root } }),
};
const stores = {
  ...files,
  redis: () => {
    const [host, port] = process.env.TIDEMILL_TEST_REDIS.split(':');
    return { redis: { host, port: Number(port), db: 12 } };
  },
  postgres: (root, t) => {
    const { url, remove } = database();
    t.after(remove);
    return { postgres: { url } };
  },
};

// A folder for two hosts on one store of their own.
function placed(t, backend, { url = 'http://127.0.0.1:1', general } = {}) {
  const place = new Place({ shipped: false, config: { server: { lease: 1 } } });
  place.settings.workflow_persistence =
    { backend, ...stores[backend](join(place.dir, 'disk'), t), ...(general && { general }) };
  place.save();
  place.script('crashy', crashSystem(url));
  t.after(() => place.remove());
  return place;
}

async function until(what, holds) {
  for (let i = 0; i < 6000; i++) {
    if (await holds()) return;
    await wait(10);
  }
  assert.fail(`never: ${what}`);
}

// Every turn of `items` is there once; those at once came in either order.
async function check(server, id, items) {
  const now = await server.get(`/v1/conversations/${id}`);
  assert.equal(now.json.status, 'waiting_input', now.text);
  assert.equal(now.json.state.count, items.length, 'every turn counted once');
  const messages = await server.get(`/v1/conversations/${id}/messages?limit=200`);
  assert.deepEqual(messages.json.items.filter((m) => m.role === 'user').map((m) => m.text).sort(),
    [...items].sort());
}

// A server outside whose first answer is held until it is let go.
async function holding(t) {
  const calls = [];
  let held = null;
  const server = createServer((req, res) => {
    let body = '';
    req.on('data', (d) => { body += d; });
    req.on('end', () => {
      calls.push({ call: JSON.parse(body).call, key: req.headers['idempotency-key'] });
      const answer = () => res.end('{}');
      if (calls.length === 1) held = answer;
      else answer();
    });
  });
  await new Promise((ok) => server.listen(0, '127.0.0.1', ok));
  server.unref();
  t.after(() => { server.closeAllConnections(); server.close(); });
  return { calls, url: `http://127.0.0.1:${server.address().port}`, letGo() { held(); } };
}

for (const backend of Object.keys(stores))
  test(`past its lease: ${backend}`, { timeout: 120000 }, async (t) => {
    const outside = await holding(t);
    const place = placed(t, backend, { url: outside.url });
    const a = await new Server(place).start(), b = await new Server(place).start();
    const { conversation_id: id } = (await a.begin('crashy', 'loop')).json;
    const headers = { 'idempotency-key': 'one' };
    const answer = a.say(id, 'thing', headers);
    await until('the first call', () => outside.calls.length > 0);
    a.process.kill('SIGSTOP');
    await until('B takes it up when the lease has run out', async () => {
      const now = (await b.get(`/v1/conversations/${id}`)).json;
      return now.status === 'waiting_input' && now.state.count === 1;
    });
    assert.deepEqual(outside.calls.map((c) => c.call), ['a1', 'a1', 'b1', 'b2']);
    assert.equal(outside.calls[0].key, outside.calls[1].key, 'what was not recorded came again as itself');
    const second = await b.say(id, 'other thing', { 'idempotency-key': 'two' });
    assert.equal(second.status, 200, second.text);
    outside.letGo();
    a.process.kill('SIGCONT');
    const late = await answer;
    assert.equal(late.status, 200, late.text);
    assert.deepEqual(late.json.replies.map((r) => r.text), ['a for thing', 'b for thing']);
    assert.equal((await b.say(id, 'thing', headers)).text, late.text, 'the same answer everywhere');
    for (const server of [a, b]) await check(server, id, ['thing', 'other thing']);
    assert.equal(outside.calls.length, 7, 'and A called nobody any more');
    assert.equal((await a.say(id, 'third', { 'idempotency-key': 'three' })).status, 200);
    await check(b, id, ['thing', 'other thing', 'third']);
    for (const server of [a, b]) assert.equal((await server.stop()).code, 0);
  });

const is_stopped = (pid) => /\) T/.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));

// B either does its turn, and A's that it finds, or says that somebody holds the store.
for (const backend of Object.keys(files))
  test(`in the middle of a commit: ${backend}`, { timeout: 120000 }, async (t) => {
    const outside = await new Outside().start();
    t.after(() => outside.stop());
    const place = placed(t, backend, { url: outside.url, general: { timeout: 0.1 } });
    const disk = new Disk(join(place.dir, 'disk'), join(place.dir, 'state'));
    const a = await new Server(place).start([], disk.env), b = await new Server(place).start();
    const { conversation_id: id } = (await a.begin('crashy', 'loop')).json;
    const done = [], refused = new Set();
    const turn = async (server, item) => {
      const r = await server.say(id, item, { 'idempotency-key': item });
      if (r.status !== 200) return r;
      assert.deepEqual(r.json.replies.map((one) => one.text), [`a for ${item}`, `b for ${item}`]);
      done.push(item);
      return r;
    };
    for (let at = 1; at <= 4; at++) { // the change of the disk before which it is stopped
      disk.halt(at);
      const answer = turn(a, `a-${at}`);
      await until('stopped', () => is_stopped(a.process.pid));
      await wait(1100); // its lease is over
      const other = await turn(b, `b-${at}`);
      disk.halt(0);
      a.process.kill('SIGCONT');
      const late = await answer;
      assert.equal(late.status, 200, late.text);
      if (other.status === 200) continue;
      assert.equal(other.status, 503, other.text);
      refused.add(other.json.code);
      assert.equal((await turn(b, `b-${at}`)).status, 200);
    }
    for (const code of refused) assert.equal(code, 'store.busy');
    await check(a, id, done);
    for (const server of [a, b]) assert.equal((await server.stop()).code, 0);
  });
