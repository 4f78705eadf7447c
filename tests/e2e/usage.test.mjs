// `resource_monitoring`: what steps take of the machine is in their records, and what a conversation
// has taken in its own; only where a system, or the configuration, asks for it.
import assert from 'node:assert/strict';
import test from 'node:test';
import { Outside, Place, Server, wait } from './host.mjs';

const script = (on, url = '') => `
local tm = require "tidemill"
local Step = tm.ConversationStep
return tm.system { name = "work", agents = {}, orchestrator = { performance_config = { ${on} } }, flows = {
  tm.ConversationFlow { flow_id = "work", start_step = "ask",
    settings = { enable_rollback = true, interaction_timeout = 3600 }, steps = {
    Step { step_id = "ask", step_type = "user_input", prompt = "How often?", save_as = "times",
      input_schema = { type = "integer" }, next_steps = { "spin" } },
    Step { step_id = "spin", step_type = "action", next_steps = { "ask" }, run = function(ctx)
      ${url && `ctx:http { url = "${url}" }`}
      local kept = {}
      for i = 1, ctx.state.times do kept[i] = ("x"):rep(1000) .. i end
      return #kept
    end } } } } }
`;

const serve = async (t, text, config = {}) => {
  const place = new Place({ shipped: false, config });
  t.after(() => place.remove());
  place.script('work', text);
  const server = await new Server(place).start();
  t.after(() => server.kill());
  return { place, server };
};

const steps_of = async (server, id) => (await server.get(`/v1/conversations/${id}/steps?limit=200`)).json.items;
const usage_of = async (server, id) => (await server.get(`/v1/conversations/${id}`)).json.usage;
const begin = async (server) => (await server.begin('work', 'work')).json.conversation_id;
const sum = (steps) => ({ cpu_us: steps.reduce((n, s) => n + s.usage.cpu_us, 0),
  memory_bytes: Math.max(...steps.map((s) => s.usage.memory_bytes)) });

test('CPU time and memory are in the records of steps, their sum in the conversation', async (t) => {
  const { place, server } = await serve(t, script('resource_monitoring = true'));
  const id = await begin(server);
  assert.equal(await usage_of(server, id), null);
  for (const times of [10, 2000, 10]) assert.equal((await server.say(id, String(times))).status, 200);
  const steps = await steps_of(server, id);
  const spins = steps.filter((s) => s.step_id === 'spin').map((s) => s.usage).reverse();
  assert.equal(spins.length, 3);
  assert.ok(spins[1].memory_bytes >= 2e6 && spins[1].memory_bytes < 8 << 20, JSON.stringify(spins));
  assert.ok(spins[0].memory_bytes < 2e6 && spins[2].memory_bytes < 2e6, JSON.stringify(spins));
  for (const s of steps) assert.ok(Number.isInteger(s.usage.cpu_us) && s.usage.cpu_us >= 0);
  assert.ok(spins[1].cpu_us > 0);
  assert.deepEqual(await usage_of(server, id), sum(steps));

  const shown = place.run(['conversations', 'show', id]);
  assert.match(shown.out, /usage.*cpu_us/s);
  await server.kill();
  const again = await new Server(place).start();
  t.after(() => again.kill());
  assert.deepEqual(await usage_of(again, id), sum(steps));
});

test('going back gives nothing back, and a fork has used nothing', async (t) => {
  const { server } = await serve(t, script('resource_monitoring = true'));
  const id = await begin(server);
  await server.say(id, '2000');
  await server.say(id, '10');
  const before = await usage_of(server, id);
  assert.equal((await server.post(`/v1/conversations/${id}/rollback`, { steps: 2 })).status, 200);
  assert.deepEqual(await usage_of(server, id), before);
  const fork = (await server.post(`/v1/conversations/${id}/fork`, {})).json.conversation_id;
  assert.equal(await usage_of(server, fork), null);
  await server.say(fork, '10');
  await server.say(id, '10');
  const [of_fork, after] = [await usage_of(server, fork), await usage_of(server, id)];
  assert.deepEqual(of_fork, sum((await steps_of(server, fork)).slice(0, 2))); // the others were before
  assert.ok(after.cpu_us >= before.cpu_us && after.memory_bytes === before.memory_bytes);
});

test('who does not ask for it has nothing of it, whatever it costs', async (t) => {
  const { server } = await serve(t, script(''));
  const id = await begin(server);
  await server.say(id, '10');
  assert.equal(await usage_of(server, id), null);
  assert.ok((await steps_of(server, id)).every((s) => !('usage' in s)));
});

const ON = { orchestrator: { performance_config: { resource_monitoring: true } } };

test('the configuration asks for all systems, and a system may decline', async (t) => {
  const all = (await serve(t, script(''), ON)).server;
  const id = await begin(all);
  await all.say(id, '10');
  assert.ok((await usage_of(all, id)).memory_bytes > 0);
  const one = (await serve(t, script('resource_monitoring = false'), ON)).server;
  const other = await begin(one);
  await one.say(other, '10');
  assert.equal(await usage_of(one, other), null);
});

test('a step that goes on after a crash is measured where it goes on', async (t) => {
  let slow = 5000;
  const outside = await new Outside(() => slow).start();
  t.after(() => outside.stop());
  const { place, server } = await serve(t, script('resource_monitoring = true', outside.url));
  const id = await begin(server);
  const lost = server.say(id, '10').catch(() => null);
  while (outside.requests.length === 0) await wait(5);
  await server.kill();
  await lost;
  slow = 0;
  const again = await new Server(place).start();
  t.after(() => again.kill());
  while ((await again.get(`/v1/conversations/${id}`)).json.status !== 'waiting_input') await wait(20);
  const steps = await steps_of(again, id);
  assert.deepEqual(steps.map((s) => [s.step_id, s.status]), [['spin', 'completed'], ['ask', 'completed']]);
  assert.deepEqual(await usage_of(again, id), sum(steps));
  const [first, second] = outside.requests;
  assert.equal(first.key, second.key);
});
