// A host on Redis: the server is killed and started again under load, a host stops while a commit is in
// doubt. Nothing acknowledged is lost, nothing happens twice, everybody gets an answer that is true.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { crashSystem } from './crash_test_system.mjs';
import { Outside, Place, Server, wait } from './host.mjs';
import { OwnRedis } from './own_redis.mjs';

const KILLS = 4, CLIENTS = 9;

let redis;
before(async () => { redis = await new OwnRedis().start(); });
after(async () => { await redis?.remove(); });

const placed = (url, db) => {
  const place = new Place({ shipped: false, config: { workflow_persistence: {
    backend: 'redis', redis: { host: '127.0.0.1', port: redis.port, db } } } });
  place.script('crashy', crashSystem(url));
  return place;
};

// Repeats under the same key until there is an answer; counts how often there was none.
async function insist(request, log) {
  for (;;) {
    const r = await request();
    if (r.status !== 503) return r;
    log.codes.add(r.json.code);
    await wait(10);
  }
}

const expected = {
  loop: (item) => [`a for ${item}`, `b for ${item}`],
  pure: (item) => [`noted ${item}`],
  stubborn: (item) => [`got ${item}`],
};

async function client(server, i, world, log) {
  log.flow = Object.keys(expected)[i % 3];
  const begun = await insist(() => server.begin('crashy', log.flow, { session_id: `s${i}` },
    { 'idempotency-key': `start-${i}` }), log);
  assert.equal(begun.status, 201, begun.text);
  log.id = begun.json.conversation_id;
  for (let n = 1; !world.over; n++) {
    const item = `item ${i}.${n}`, headers = { 'idempotency-key': `message-${i}-${n}` };
    const answer = await insist(() => server.say(log.id, item, headers), log);
    assert.equal(answer.status, 200, answer.text);
    assert.deepEqual(answer.json.replies.map((r) => r.text), expected[log.flow](item));
    log.said.push({ item, headers, text: answer.text });
  }
}

test('the server is killed and started again under load', { timeout: 120000 }, async (t) => {
  const outside = await new Outside(() => Math.random() * 10).start();
  const place = placed(outside.url, 0);
  const server = await new Server(place).start();
  const world = { over: false };
  const logs = Array.from({ length: CLIENTS }, () => ({ said: [], codes: new Set() }));
  const clients = Promise.all(logs.map((log, i) => client(server, i, world, log)));
  const turns = () => logs.reduce((n, l) => n + l.said.length, 0);
  for (let kills = 0; kills < KILLS; kills++) {
    for (const from = turns(); turns() < from + 2 * CLIENTS;) await wait(5);
    await redis.kill();
    await wait(Math.random() * 100);
    await redis.start();
  }
  for (const from = turns(); turns() < from + 2 * CLIENTS;) await wait(5); // it resumed by itself
  world.over = true;
  await clients;
  assert.equal((await server.get('/readyz')).status, 200);
  for (const log of logs) {
    const now = await server.get(`/v1/conversations/${log.id}`);
    assert.equal(now.json.status, 'waiting_input');
    assert.equal(now.json.state.count, log.said.length, 'every turn counted once');
    const messages = await server.get(`/v1/conversations/${log.id}/messages?limit=200`);
    const heard = messages.json.items.filter((m) => m.role === 'user').reverse();
    assert.deepEqual(heard.map((m) => m.text), log.said.slice(-heard.length).map((a) => a.item));
    for (const a of log.said.slice(-8)) {
      const again = await server.say(log.id, a.item, a.headers);
      assert.equal(again.text, a.text, 'a repeat must get the first answer byte for byte');
    }
  }
  const list = await server.get('/v1/conversations?system=crashy&limit=200');
  assert.equal(list.json.items.length, CLIENTS, 'no conversation twice, none lost');
  assert.match(server.errors, /the store cannot be written/);
  t.diagnostic(`${turns()} turns; refused meanwhile with ${
    [...new Set(logs.flatMap((l) => [...l.codes]))].join(', ') || 'nothing'}`);
  assert.equal((await server.stop()).code, 0);
  await outside.stop();
  place.remove();
});

test('a host that stops in doubt says so, and a repeat gets the one answer', { timeout: 120000 },
  async () => {
    const place = placed('http://127.0.0.1:1', 2);
    const a = await new Server(place).start();
    const id = (await a.begin('crashy', 'pure')).json.conversation_id;
    const headers = { 'idempotency-key': 'one' };
    redis.process.kill('SIGSTOP');
    const answer = a.say(id, 'thing', headers);
    await wait(300); // it is sent by then; if not, the repeat finds out as well
    const stopped = a.stop();
    const refused = await answer;
    assert.equal(refused.status, 503, refused.text);
    assert.equal(refused.json.code, 'store.outcome_unknown');
    assert.match(refused.json.detail, /same Idempotency-Key/);
    await stopped;
    redis.process.kill('SIGCONT');
    const b = await new Server(place).start();
    const again = await b.say(id, 'thing', headers);
    assert.equal(again.status, 200, again.text);
    assert.deepEqual(again.json.replies.map((r) => r.text), ['noted thing']);
    assert.equal((await b.get(`/v1/conversations/${id}`)).json.state.count, 1, 'it happened once');
    await b.stop();
    place.remove();
  });
