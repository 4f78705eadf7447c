// Many conversations over HTTP, with and without calls to the outside, against a real process that is
// killed again and again: nothing acknowledged is lost, nothing recorded happens twice, nobody is
// stuck. crash_file.test.mjs is the same on logs.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { crashSystem } from './crash_test_system.mjs';
import { Outside, Place, Server, wait } from './host.mjs';

const KILLS = Number(process.env.CRASH_KILLS ?? 50);
const CONVERSATIONS = 24;

let place, outside, server;
const world = { up: null, over: false }; // `up` resolves when the server answers again

before(async () => {
  outside = await new Outside(() => Math.random() * 30).start();
  place = new Place({ shipped: false });
  if (process.env.TEST_BACKEND === 'file') place.use_files();
  place.script('crashy', crashSystem(outside.url));
  server = await new Server(place).start();
  world.up = Promise.resolve();
});
after(async () => {
  await server?.kill();
  await outside?.stop();
  place?.remove();
});

// Asks until there is an answer of the server, across crashes.
async function insist(request) {
  for (;;) {
    try {
      await world.up;
      const r = await request();
      if (r.status !== 503) return r;
    } catch { /* the process died under us */ }
    await wait(5);
  }
}

// Somebody who sends a message once and, if no answer comes, only looks until the turn is over.
async function watch(id, revision) {
  for (;;) {
    const r = await insist(() => server.get(`/v1/conversations/${id}`));
    assert.equal(r.status, 200, r.text);
    if (r.json.status === 'waiting_input') return r.json.revision > revision;
    await wait(10);
  }
}

// What each flow is given, must answer, must call outside, and must have in its journal.
const flows = {
  loop: {
    item: (i, n) => `item ${i}.${n}`,
    replies: (item) => [`a for ${item}`, `b for ${item}`],
    calls: () => ['a1', 'b1', 'b2'],
    steps: () => ['fetch_a completed', 'tally completed', 'fetch_b completed'],
    before: [],
  },
  pure: {
    item: (i, n) => `item ${i}.${n}`,
    replies: (item) => [`noted ${item}`],
    calls: () => [],
    steps: () => ['tally completed', 'note completed'],
    before: [],
  },
  stubborn: {
    item: (i, n) => `${['fine', 'flaky', 'bad'][n % 3]} ${i}.${n}`,
    replies: (item) => [item.startsWith('bad') ? `sorry for ${item}` : `got ${item}`],
    calls: (item) => ({ fine: ['r1', 'r2'], flaky: ['r1', 'r1', 'r2'], bad: ['r1', 'r1', 'r1'] })[
      item.split(' ')[0]],
    steps: (item) => ({
      fine: ['fetch completed', 'tally completed'],
      flaky: ['fetch failed', 'fetch completed', 'tally completed'],
      bad: ['fetch failed', 'fetch failed', 'fetch failed', 'sorry completed', 'tally completed'],
    })[item.split(' ')[0]],
    before: ['greet completed'],
  },
};
const flow_of = (i) => Object.keys(flows)[i % 3];

async function client(i, log) {
  log.flow = flow_of(i);
  const flow = flows[log.flow];
  const begun = await insist(() => server.begin('crashy', log.flow, { session_id: `s${i}` },
    { 'idempotency-key': `start-${i}` }));
  assert.equal(begun.status, 201, begun.text);
  log.id = begun.json.conversation_id;
  log.begun = begun.text;
  let revision = begun.json.revision;
  for (let n = 1; !world.over; n++) {
    const item = flow.item(i, n);
    const headers = { 'idempotency-key': `message-${i}-${n}` };
    let answer = null;
    const patient = Math.random() < 0.5;
    if (!patient) {
      try {
        await world.up;
        answer = await server.say(log.id, item, headers);
      } catch {
        log.abandoned += await watch(log.id, revision) ? 1 : 0;
      }
    }
    // The same key: either the first answer, or, if the message never arrived, the first try.
    if (answer === null || answer.status === 503)
      answer = await insist(() => server.say(log.id, item, headers));
    assert.equal(answer.status, 200, answer.text);
    assert.equal(answer.json.status, 'waiting_input', answer.text);
    assert.deepEqual(answer.json.replies.map((r) => r.text), flow.replies(item));
    revision = answer.json.revision;
    log.answers.push({ item, headers, text: answer.text, revision });
    if (log.flow === 'pure') await wait(Math.random() * 20); // its turns take next to no time
  }
}

// Most kills hit a server at work; some one that drains, some one that is just starting.
async function killer() {
  for (let kills = 0; kills < KILLS; kills++) {
    await wait(30 + Math.random() * 170);
    let up;
    world.up = new Promise((done) => { up = done; });
    if (kills % 5 === 3) {
      server.process.kill('SIGTERM');
      await wait(Math.random() * 40);
    }
    await server.kill();
    if (kills % 5 === 4) {
      const early = new Server(place);
      const started = early.start().catch(() => null);
      await wait(Math.random() * 30);
      await early.kill();
      await started;
    }
    server = await new Server(place).start();
    up();
  }
}

// The calls that the outside has seen, per answer and in order. One that was under way when its host
// died may come again, at once and under the same key; after another call it was recorded, and must
// never come again.
function order_calls(requests) {
  const seen = new Map();
  let repeated = 0;
  for (const r of requests) {
    const { conversation, item, call } = JSON.parse(r.body);
    const name = `${conversation} ${item}`;
    const calls = seen.get(name) ?? [];
    seen.set(name, calls);
    if (calls.at(-1)?.key === r.key) repeated++;
    else calls.push({ call, key: r.key });
  }
  for (const [name, calls] of seen)
    assert.equal(new Set(calls.map((c) => c.key)).size, calls.length, `${name}: made again later`);
  return { seen: new Map([...seen].map(([k, v]) => [k, v.map((c) => c.call)])), repeated };
}

async function every(id, what) {
  const items = [];
  for (let cursor = null; ;) {
    const r = await server.get(`/v1/conversations/${id}/${what}?limit=200`
      + (cursor ? `&cursor=${encodeURIComponent(cursor)}` : ''));
    assert.equal(r.status, 200, r.text);
    items.push(...r.json.items);
    cursor = r.json.next;
    if (!cursor) return items;
  }
}

async function check_conversation(log, seen) {
  const done = log.answers.length;
  const flow = flows[log.flow];
  const now = await server.get(`/v1/conversations/${log.id}`);
  assert.equal(now.json.status, 'waiting_input');
  assert.equal(now.json.state.count, done, `${log.id}: steps ran ${now.json.state.count} times`);
  const steps = (await every(log.id, 'steps')).reverse().filter((s) => s.step_id !== 'ask');
  assert.deepEqual(steps.map((s) => `${s.step_id} ${s.status}`),
    [...flow.before, ...log.answers.flatMap((a) => flow.steps(a.item))], log.id);
  const said = (await every(log.id, 'messages')).filter((m) => m.role === 'user').reverse();
  assert.deepEqual(said.map((m) => m.text), log.answers.map((a) => a.item));
  for (const a of log.answers)
    assert.deepEqual(seen.get(`${log.id} ${a.item}`) ?? [], flow.calls(a.item), a.item);
  if (log.flow === 'stubborn') assert.deepEqual(seen.get(`${log.id} start`), ['s1']);
  for (const a of log.answers.slice(-8)) {
    const again = await server.say(log.id, a.item, a.headers);
    assert.equal(again.status, 200);
    assert.equal(again.text, a.text, 'a repeat must get the first answer byte for byte');
  }
}

test(`${KILLS} kills`, { timeout: 300000 }, async (t) => {
  const logs = Array.from({ length: CONVERSATIONS }, () => ({ answers: [], abandoned: 0 }));
  const clients = Promise.all(logs.map((log, i) => client(i, log)));
  await killer();
  world.over = true;
  await clients;
  await server.kill(); // once more, with everybody waiting
  server = await new Server(place).start();

  const { seen, repeated } = order_calls(outside.requests);
  for (const [i, log] of logs.entries()) {
    await check_conversation(log, seen);
    const again = await server.begin('crashy', log.flow, { session_id: `s${i}` },
      { 'idempotency-key': `start-${i}` });
    assert.equal(again.text, log.begun);
  }
  const list = await server.get('/v1/conversations?system=crashy&limit=200');
  assert.equal(list.json.items.length, CONVERSATIONS, 'no conversation twice, none lost');
  const turns = logs.reduce((n, l) => n + l.answers.length, 0);
  const abandoned = logs.reduce((n, l) => n + l.abandoned, 0);
  t.diagnostic(`${turns} turns, ${outside.requests.length} calls, ${repeated} of them repeated `
    + `because they were under way, ${abandoned} turns finished without their client`);
  assert.ok(turns > KILLS, 'the clients got somewhere');
  assert.ok(abandoned > 0, 'some turns finished without their client');
});
