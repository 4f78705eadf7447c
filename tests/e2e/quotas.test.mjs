// Limits on turns where two hosts share a store: both of them see what the other has done.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Place, Server } from './host.mjs';
import { database } from './own_postgres.mjs';

const SYSTEM = `local tm = require "tidemill"
return tm.system { agents = {}, orchestrator = { session_config = { quota_limits = { QUOTAS } } },
  flows = { tm.ConversationFlow { flow_id = "ask", start_step = "ask",
    settings = { enable_rollback = true }, steps = {
      tm.ConversationStep { step_id = "ask", step_type = "user_input", prompt = "So?",
        input_schema = { type = "text" }, next_steps = { "note" } },
      tm.ConversationStep { step_id = "note", step_type = "action", run = function() end,
        next_steps = { "ask" } } } } } }`;

const stores = {
  postgres: () => {
    const { url, remove } = database();
    return { settings: { backend: 'postgres', postgres: { url } }, remove };
  },
  redis: () => {
    const [host, port] = process.env.TIDEMILL_TEST_REDIS.split(':');
    return { settings: { backend: 'redis', redis: { host, port: Number(port), db: 13 } }, remove() {} };
  },
  sqlite: () => ({ remove() {} }),
};

const with_hosts = (kind, quotas, what, fn) => test(`${what} (${kind})`, async () => {
  const store = stores[kind]();
  const place = new Place({ shipped: false });
  if (store.settings) place.settings.workflow_persistence = store.settings;
  place.save();
  place.script('desk', SYSTEM.replace('QUOTAS', quotas));
  const hosts = [await new Server(place).start(), await new Server(place).start()];
  const n = Date.now(); // the store of the tests' Redis is not empty
  await fn(hosts, `${kind}-${n}`, place);
  for (const host of hosts) await host.stop();
  place.remove();
  store.remove();
});

// Starts on both hosts at once, then on each until it refuses. Gives what came of it.
async function spend(hosts, headers) {
  const begin = (host) => host.begin('desk', 'ask', {}, headers);
  const answers = await Promise.all(Array.from({ length: 60 }, (_, i) => begin(hosts[i % 2])));
  for (const host of hosts) {
    do answers.push(await begin(host)); while (answers.at(-1).status === 201);
  }
  const begun = answers.filter((r) => r.status === 201);
  for (const r of answers.filter((one) => one.status !== 201)) {
    assert.equal(r.status, 429, r.text);
    assert.equal(r.json.code, 'turn.rate');
    assert.ok(r.json.retry_after > 0 && r.json.retry_after <= 60, r.text);
    assert.equal(r.headers['retry-after'], String(r.json.retry_after));
  }
  const id = begun[0].json.conversation_id;
  const refused = await hosts[0].say(id, 'x', headers);
  const { revision } = (await hosts[0].get(`/v1/conversations/${id}`, headers)).json;
  const paused = await hosts[1].post(`/v1/conversations/${id}/pause`, {}, headers);
  assert.equal(paused.status, 200, paused.text); // what operators do always goes on
  return { begun: begun.length, refused: refused.status, revision };
}

for (const kind of Object.keys(stores)) {
  with_hosts(kind, 'max_steps_per_session = 5', 'a session has so many steps on both', async ([a, b], name) => {
    const one = await a.begin('desk', 'ask', { session_id: name });
    const id = one.json.conversation_id;
    assert.equal(one.status, 201, one.text);
    assert.equal((await b.say(id, 'x')).status, 200); // each answer is two steps
    assert.equal((await a.say(id, 'x', { 'idempotency-key': 'k' })).status, 200);
    const other = await b.begin('desk', 'ask', { session_id: name });
    assert.equal(other.status, 201, other.text);
    assert.equal((await a.say(other.json.conversation_id, 'x')).status, 200);
    for (const host of [a, b]) {
      for (const refused of [await host.say(id, 'x'), await host.say(other.json.conversation_id, 'x'),
        await host.begin('desk', 'ask', { session_id: name })]) {
        assert.equal(refused.status, 429, refused.text);
        assert.equal(refused.json.code, 'session.steps');
        assert.equal(refused.json.retry_after, undefined);
      }
      assert.equal((await host.get(`/v1/conversations/${id}`)).json.revision, 3);
      assert.equal((await host.say(id, 'x', { 'idempotency-key': 'k' })).status, 200);
    }
    const steps = (await a.get(`/v1/conversations/${id}/steps`)).json.items.length
      + (await a.get(`/v1/conversations/${other.json.conversation_id}/steps`)).json.items.length;
    assert.equal(steps, 6); // the last turn was finished
    const back = await b.post(`/v1/conversations/${id}/rollback`, { steps: 1 });
    assert.equal(back.status, 200, back.text);
    assert.equal((await b.say(id, 'x')).status, 429); // what was undone was done
    assert.equal((await b.begin('desk', 'ask', { session_id: `${name} b` })).status, 201);
  });

  with_hosts(kind, 'rate_limit_per_minute = 40', 'a tenant has so many turns in a minute on both',
    async (hosts, name) => {
      let was;
      for (let i = 0, minute = -1; minute !== Math.floor(Date.now() / 60000); i++) { // within one
        minute = Math.floor(Date.now() / 60000);
        was = await spend(hosts, { 'x-tidemill-tenant': `${name}-${i}` });
      }
      assert.deepEqual(was, { begun: 40, refused: 429, revision: 1 });
    });
}
