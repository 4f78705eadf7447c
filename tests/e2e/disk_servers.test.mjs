// The disk of a redis-server and of a PostgreSQL is full, or cannot sync, under a host: who needs a
// commit gets 503 with the reason or waits until it is known, nothing acknowledged is lost, nothing
// happens twice, and when the fault is over the host goes on by itself.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { crashSystem } from './crash_test_system.mjs';
import { Place, Server, wait } from './host.mjs';
import { OwnPostgres } from './own_postgres.mjs';
import { OwnRedis } from './own_redis.mjs';

const CLIENTS = 3;

async function until(what, holds) {
  for (let i = 0; i < 3000; i++) {
    if (await holds()) return;
    await wait(10);
  }
  assert.fail(`never: ${what}`);
}

// Some conversations on a store, each with what it was answered.
class Talks {
  async start(t, store) {
    t.after(() => store.remove());
    const place = new Place({ shipped: false });
    t.after(() => place.remove());
    this.store = store;
    place.settings.workflow_persistence = store.settings;
    place.save();
    place.script('crashy', crashSystem('http://127.0.0.1:1'));
    this.server = await new Server(place).start();
    this.logs = await Promise.all(Array.from({ length: CLIENTS }, async (_, i) => {
      const r = await this.server.begin('crashy', 'pure', {}, { 'idempotency-key': `start-${i}` });
      assert.equal(r.status, 201, r.text);
      return { i, id: r.json.conversation_id, items: [], answers: [] };
    }));
    await this.turns();
    return this;
  }
  say(log, n = log.answers.length) {
    log.items[n] ??= `item ${n} ${this.long ?? ''}`;
    return this.server.say(log.id, log.items[n], { 'idempotency-key': `message-${log.i}-${n}` });
  }
  async turn(log, { refusable = false } = {}) {
    const r = await this.say(log);
    if (refusable && r.status === 503) return; // the next turn repeats it
    assert.equal(r.status, 200, r.text);
    log.answers.push(r.text);
  }
  turns() { return Promise.all(this.logs.map((log) => this.turn(log))); }
  // Everybody hears why not.
  async stuck(logs, codes, { begins = true } = {}) {
    const all = await Promise.all(logs.map((log) => this.say(log)));
    if (begins)
      all.push(await this.server.begin('crashy', 'pure', {}, { 'idempotency-key': 'stuck' }));
    for (const r of all)
      assert.ok(r.status === 503 && codes.split(' ').includes(r.json.code), r.text);
    if (begins) assert.equal((await this.server.get('/readyz')).status, 503);
    assert.equal((await this.server.get('/livez')).status, 200);
  }
  ready() {
    return until('ready', async () => (await this.server.get('/readyz')).status === 200);
  }
  async read() {
    for (const log of this.logs) {
      const now = await this.server.get(`/v1/conversations/${log.id}`);
      assert.equal(now.status, 200, now.text);
      assert.equal(now.json.state.count, log.answers.length, 'every turn counted once');
      for (const [n, text] of log.answers.entries())
        assert.equal((await this.say(log, n)).text, text);
    }
  }
  // All goes on, and is there after a death of the server.
  async check() {
    await this.ready();
    await this.turns();
    await this.read();
    await this.store.kill();
    await this.store.start();
    await this.ready();
    await this.read();
    await this.turns();
    const list = await this.server.get('/v1/conversations?system=crashy');
    assert.equal(list.json.items.length, CLIENTS, 'no conversation twice, none of those refused');
    assert.equal((await this.server.stop()).code, 0);
  }
}

// Both take a write that is lost for their end. Redis stays so, and ends again after it was started
// and written to; PostgreSQL starts by itself, again and again.
const servers = {
  redis: {
    make: () => new OwnRedis().start(), suffix: '.incr.aof',
    down: (store) => until('the server ends', () => !store.running),
    again: async (store) => {
      await store.start();
      await store.end;
    },
    resume: (store) => store.start(),
  },
  postgres: {
    make: () => new OwnPostgres().make({ failing: 'pg_wal' }), suffix: '',
    down: (store) => until('all of it has ended', () => store.log.includes('reinitializing')),
    again: (store, met = store.disk.met()) => until('it fails again', () => store.disk.met() > met),
    resume() {},
  },
};
const faults = {
  'a full disk': [['write'], 'ENOSPC', 'short'],
  'a disk that cannot sync': [['sync'], 'EIO', 'fail'],
};

for (const [backend, { make, suffix, down, again, resume }] of Object.entries(servers))
  for (const [name, [ops, error, effect]] of Object.entries(faults))
    test(`${name}: ${backend}`, { timeout: 120000 }, async (t) => {
      const store = await make(), talks = await new Talks().start(t, store);
      const [one, ...others] = talks.logs;
      store.disk.fault(ops, error, { effect, suffix });
      // PostgreSQL may come to say why before it ends: then nothing is in doubt.
      const refusable = backend === 'postgres';
      const why = refusable ? 'store.away store.full store.io' : 'store.away';
      let known = false;
      const doubtful = talks.turn(one, { refusable }).finally(() => { known = true; });
      await down(store);
      await until('it is noticed', async () => (await talks.server.get('/readyz')).status === 503);
      await talks.stuck(others, why);
      await again(store);
      await talks.stuck(others, why);
      if (name === 'a full disk' && !refusable)
        assert.ok(!known, 'nobody is answered before it is known');
      store.disk.mend();
      await resume(store);
      await doubtful;
      await talks.check();
    });

// A server that lives on and refuses.
test('a redis-server that refuses to write to a full disk', { timeout: 120000 }, async (t) => {
  const store = await new OwnRedis({ appendfsync: 'everysec' }).start();
  const talks = await new Talks().start(t, store);
  store.disk.fault(['write'], 'ENOSPC', { effect: 'short', suffix: '.incr.aof' });
  const [one, ...others] = talks.logs;
  await talks.turn(one); // the server tries this one again until it is on the disk
  await talks.stuck(others, 'store.io');
  await talks.stuck(others, 'store.io');
  store.disk.mend();
  await talks.check();
});

test('no room for the tables of a PostgreSQL', { timeout: 120000 }, async (t) => {
  const store = await new OwnPostgres().make({ failing: 'base' });
  const talks = await new Talks().start(t, store);
  store.disk.fault(['write', 'create'], 'ENOSPC');
  talks.long = randomBytes(20000).toString('hex'); // more than the pages that are there can take
  await talks.stuck(talks.logs, 'store.full', { begins: false });
  await talks.stuck(talks.logs, 'store.full', { begins: false });
  store.disk.mend();
  await talks.check();
});
