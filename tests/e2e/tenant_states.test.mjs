// Isolated tenants have Lua states of their own: what a script keeps beside the conversation is seen
// by no other tenant, in turns of every kind; states are few however many tenants come.
import assert from 'node:assert/strict';
import test from 'node:test';
import { Place, Server, wait } from './host.mjs';

// Locals of a module outlive the turn; no script should rely on them. `names` is what a state knows.
const script = (word, after_keep = 'ask') => `
local tm = require "tidemill"
local Step = tm.ConversationStep
local turns, undone, nudged, names = 0, 0, 0, {}
return tm.system { name = "count", agents = {}, flows = { tm.ConversationFlow {
  flow_id = "count", start_step = "ask", settings = { enable_rollback = true },
  steps = {
    Step { step_id = "ask", step_type = "user_input", prompt = "${word}?", save_as = "name",
      input_schema = { type = "text" }, next_steps = { "keep" } },
    Step { step_id = "keep", step_type = "action", next_steps = { "${after_keep}" },
      run = function(ctx)
        turns = turns + 1
        names[#names + 1] = ctx.state.name
        ctx.state.turns, ctx.state.undone, ctx.state.nudged = turns, undone, nudged
        ctx.state.names = table.concat(names, " ")
      end,
      undo = function() undone = undone + 1 end },
    ${after_keep === 'ask' ? '' : `
    Step { step_id = "wait", step_type = "user_input", prompt = "Well?", save_as = "name",
      input_schema = { type = "text" }, next_steps = { "keep" },
      on_no_input = { { after = "1s", go = "nudge" } } },
    Step { step_id = "nudge", step_type = "action", next_steps = { "ask" },
      run = function() nudged = nudged + 1 end },`}
  } } } }
`;

const of = (tenant) => ({ 'x-tidemill-tenant': tenant });

// One worker, so that tenants meet in it.
const serve = async (isolation, open_states = 64, text = script('Name')) => {
  const place = new Place({ shipped: false, config: { log: { level: 'debug', format: 'json' },
    server: { workers: 1 }, tenants: { isolation, open_states } } });
  place.script('count', text);
  return { place, server: await new Server(place).start() };
};
const begin = async (server, tenant) => {
  const r = await server.begin('count', 'count', {}, of(tenant));
  assert.equal(r.status, 201, r.text);
  return r.json.conversation_id;
};
const read = async (server, tenant, id) =>
  (await server.get(`/v1/conversations/${id}`, of(tenant))).json;
// What the conversation is told by the state that it runs in.
const say = async (server, tenant, id) => {
  const r = await server.say(id, tenant, of(tenant));
  assert.equal(r.status, 200, r.text);
  return (await read(server, tenant, id)).state;
};
const end = async ({ place, server }) => {
  await server.stop();
  place.remove();
};

test('tenants that share a state see what it keeps, isolated ones do not', async () => {
  for (const isolation of [false, true]) {
    const all = await serve(isolation), { server } = all;
    const acme = await begin(server, 'acme'), other = await begin(server, 'umbrella');
    const second = await begin(server, 'acme');
    assert.equal((await say(server, 'acme', acme)).names, 'acme');
    assert.equal((await say(server, 'umbrella', other)).names,
      isolation ? 'umbrella' : 'acme umbrella');
    const last = await say(server, 'acme', second);
    assert.equal(last.names, isolation ? 'acme acme' : 'acme umbrella acme');
    assert.equal(last.turns, isolation ? 2 : 3);
    await end(all);
  }
});

test('rollbacks and deadlines run in the state of their tenant', async () => {
  const all = await serve(true, 64, script('Name', 'wait')), { server } = all;
  const acme = await begin(server, 'acme'), other = await begin(server, 'umbrella');
  await say(server, 'acme', acme);
  await say(server, 'umbrella', other);
  const r = await server.post(`/v1/conversations/${acme}/rollback`, { steps: 1, force: true },
    of('acme'));
  assert.equal(r.status, 200, r.text);
  assert.equal(r.json.current_step, 'ask');
  await say(server, 'acme', acme);
  for (const [tenant, id] of [['acme', acme], ['umbrella', other]])
    while ((await read(server, tenant, id)).current_step !== 'ask') await wait(50);
  const mine = await say(server, 'acme', acme), theirs = await say(server, 'umbrella', other);
  assert.deepEqual([mine.turns, mine.undone], [3, 1]);
  assert.ok(mine.nudged >= 1); // twice where the rollback came late
  assert.deepEqual([theirs.turns, theirs.undone, theirs.nudged], [2, 0, 1]);
  await end(all);
});

test('many tenants at once in few states: each has only its own', async () => {
  const all = await serve(true, 3), { server } = all;
  const tenants = Array.from({ length: 40 }, (_, i) => `t${i}`);
  await Promise.all(tenants.map(async (tenant) => {
    const id = await begin(server, tenant);
    for (let i = 0; i < 3; i++) {
      const { names } = await say(server, tenant, id);
      assert.ok(names.split(' ').every((name) => name === tenant), `${tenant}: ${names}`);
    }
  }));
  const lines = server.errors.split('\n').filter((l) => l.includes('a tenant\'s state is'));
  const counts = lines.map((l) => Number(JSON.parse(l).states));
  assert.equal(Math.max(...counts), 3);
  assert.ok(lines.filter((l) => l.includes('loaded')).length >= 40);
  await end(all);
});

test('new scripts: old conversations on their version, new ones on the new, none fails', async () => {
  const all = await serve(true, 4), { place, server } = all;
  const tenants = ['a', 'b', 'c'];
  const old = {};
  for (const tenant of tenants) {
    old[tenant] = await begin(server, tenant);
    assert.equal((await say(server, tenant, old[tenant])).turns, 1);
  }
  place.script('count', script('Who'));
  let over = false;
  const busy = (async () => {
    for (let i = 0; !over; i++) await begin(server, `t${i % 6}`);
  })();
  const r = await server.post('/v1/admin/reload', {});
  over = true;
  await busy;
  assert.equal(r.status, 200, r.text);
  for (const tenant of tenants) {
    const now = await begin(server, tenant);
    assert.equal((await read(server, tenant, now)).prompt.text, 'Who?');
    const { names } = await say(server, tenant, now);
    assert.equal(names, tenant);
    const then = await say(server, tenant, old[tenant]);
    assert.ok(then.names.split(' ').every((name) => name === tenant));
    assert.equal((await read(server, tenant, old[tenant])).prompt.text, 'Name?');
  }
  await end(all);
});
