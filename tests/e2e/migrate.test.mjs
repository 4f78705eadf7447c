// Conversations that go to a new version of their scripts: one by one, all of a system, beside a
// running server, and with a kill in the middle.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { after, test } from 'node:test';
import { Place, program, Server, wait } from './host.mjs';

const step = (id, next, more = '') => `tm.ConversationStep { step_id = "${id}",
  step_type = "user_input", prompt = "${id}?", input_schema = { type = "text", required = true },
  save_as = "${id}", next_steps = { ${next} } ${more} },`;
const script = (steps, more = '') => `
local tm = require "tidemill"
return tm.system { agents = {}, flows = { tm.ConversationFlow { flow_id = "form",
  start_step = "name", settings = { enable_rollback = true, max_rollback_steps = 5 },
  steps = { ${steps} }, ${more} } } }
`;
const OLD = script(step('name', '"city", "end"') + step('city', '"zip"') + step('zip', '"end"'));
const NEW = script(step('name', '"city", "end"') + step('city', '"country"') + step('country', '"end"'),
  `migrate = function(state, from)
    return { name = state.name and state.name:upper(), from = from }
  end`);

const places = [];
after(() => { for (const place of places) place.remove(); });
const begin = async () => {
  const place = new Place({ shipped: false });
  places.push(place);
  place.script('form', OLD);
  return { place, server: await new Server(place).start() };
};
const start = async (server) => (await server.begin('form', 'form')).json.conversation_id;
const reload = async (place, server, text) => {
  place.script('form', text);
  assert.equal((await server.post('/v1/admin/reload', {})).status, 200);
};
const shown = async (server, id) => (await server.get(`/v1/conversations/${id}`)).json;
const migrate = (server, id, body) => server.post(`/v1/conversations/${id}/migrate`, body);

test('what another host has migrated is answered as it is, not as it was', async () => {
  const place = new Place({ shipped: false });
  places.push(place);
  const text = script(step('name', '"city"') + step('city', '"end"'),
    'migrate = function(state) return state end');
  place.script('form', `${text} -- the old version`);
  const server = await new Server(place).start(), other = await new Server(place).start();
  await reload(place, server, text); // the other one offers the old version still
  const id = await start(server);
  const newest = (await server.say(id, 'Ann')).json;
  const down = await migrate(other, id);
  assert.equal(down.status, 200, down.text);
  assert.notEqual(down.json.flow_version, newest.flow_version);
  const up = await migrate(server, id);
  assert.deepEqual([up.json.flow_version, up.json.revision],
    [newest.flow_version, down.json.revision + 1]);
  const seen = await shown(other, id);
  assert.deepEqual([seen.flow_version, seen.revision], [newest.flow_version, up.json.revision]);
  await other.stop();
  await server.stop();
});

test('a dry run, the migration, and no way back over it', async () => {
  const { place, server } = await begin();
  const id = await start(server);
  await server.say(id, 'Ann');
  const before = await shown(server, id);
  await reload(place, server, NEW);
  assert.equal((await shown(server, id)).flow_version, before.flow_version);
  const dry = await migrate(server, id, { dry_run: true });
  assert.equal(dry.status, 200, dry.text);
  assert.deepEqual([dry.json.dry_run, dry.json.durable, dry.json.from_version],
    [true, false, before.flow_version]);
  assert.deepEqual(dry.json.state, { name: 'ANN', from: before.flow_version });
  assert.deepEqual(await shown(server, id), before); // nothing came of it
  const done = await migrate(server, id);
  assert.equal(done.status, 200, done.text);
  assert.equal(done.json.flow_version, dry.json.flow_version);
  assert.equal(done.json.prompt.text, 'city?');
  assert.equal((await migrate(server, id)).json.revision, done.json.revision); // once is enough
  assert.equal((await server.say(id, 'Paris')).json.current_step, 'country');
  const back = await server.post(`/v1/conversations/${id}/rollback`, { steps: 2 });
  assert.deepEqual([back.status, back.json.code], [409, 'rollback.migrated']);
  assert.equal((await server.post(`/v1/conversations/${id}/rollback`, { steps: 1 })).json.current_step,
    'city');
  await server.say(id, 'Rome');
  assert.equal((await server.say(id, 'Italy')).json.status, 'completed');
  const over = await migrate(server, id, { dry_run: true });
  assert.deepEqual([over.status, over.json.code], [409, 'conversation.finished']);
  await server.stop();
});

test('what stands in the way is said before, and leaves everything as it was', async () => {
  const { place, server } = await begin();
  const id = await start(server);
  await server.say(id, 'Ann');
  await server.say(id, 'Paris'); // at a step that the new version does not have
  const before = await shown(server, id);
  await reload(place, server, NEW);
  for (const body of [{ dry_run: true }, {}]) {
    const refused = await migrate(server, id, body);
    assert.deepEqual([refused.status, refused.json.code], [409, 'migrate.step']);
    assert.match(refused.json.detail, /'form' has no step 'zip', at which the conversation waits/);
  }
  await reload(place, server, OLD.replace('"Ann"', '"x"') + '-- another\n');
  assert.deepEqual([(await migrate(server, id)).json.code], ['migrate.undefined']);
  await reload(place, server, OLD.replace('steps = {', 'migrate = function() error "no" end, steps = {'));
  const failed = await migrate(server, id);
  assert.deepEqual([failed.status, failed.json.code], [500, 'migrate.failed']);
  assert.match(failed.json.detail, /form\/init\.lua:\d+: no/);
  assert.deepEqual(await shown(server, id), before);
  assert.equal((await server.say(id, '75001')).json.status, 'completed');
  await server.stop();
});

test('what goes wrong in a migration says where, in which flow, and that it was one', async () => {
  const { place, server } = await begin();
  const id = await start(server);
  await server.say(id, 'Ann');
  const before = await shown(server, id);
  const refusal = async (body, steps = step('name', '"city"') + step('city', '"end"')) => {
    await reload(place, server, script(steps, `migrate = function(state) ${body} end`));
    const r = await migrate(server, id);
    assert.equal(r.status, 500, r.text);
    assert.deepEqual(await shown(server, id), before);
    return r.json;
  };
  const where = /migrate function of the flow 'form' \(.*form\/init\.lua:\d+\) failed: /;
  for (const [body, why] of [['while true do end', /50 ms .*init\.lua:\d+;/],
    ['local all = {} while true do all[#all + 1] = ("x"):rep(9000) .. #all end', /memory/]]) {
    const failed = await refusal(body);
    assert.equal(failed.code, 'migrate.failed');
    assert.match(failed.detail, where);
    assert.match(failed.detail, why);
  }
  const asks = await refusal('return state', step('name', '"city"')
    + step('city', '"end"').replace('"city?"', '"{gone}?"'));
  assert.equal(asks.code, 'template.unknown_name');
  assert.match(asks.detail,
    /after the migration .* 'city' of the flow 'form' \(.*form\/init\.lua:\d+\): .*gone/);
  await server.stop();
});

test('a saga that could not be undone any more is not taken there', async () => {
  const saga = (undone) => script(step('name', '"pay"') +
    `tm.ConversationStep { step_id = "${undone}", step_type = "action", next_steps = { "city" },
      run = function() return 7 end, undo = function() end },` + step('city', '"end"') +
    (undone === 'pay' ? '' : step('pay', '"city"')),
  'compensate_on_failure = true, migrate = function(state) return state end');
  const { place, server } = await begin();
  await reload(place, server, saga('pay'));
  const id = await start(server);
  assert.equal((await server.say(id, 'Ann')).json.current_step, 'city');
  const before = await shown(server, id);
  await reload(place, server, saga('charge'));
  for (const body of [{ dry_run: true }, undefined]) {
    const refused = await migrate(server, id, body);
    assert.deepEqual([refused.status, refused.json.code], [409, 'migrate.undo'], refused.text);
    assert.match(refused.json.detail, /the step 'pay' of the flow 'form'/);
  }
  assert.deepEqual(await shown(server, id), before);
  await reload(place, server, saga('pay').replace('return 7', 'return 8'));
  assert.equal((await migrate(server, id)).json.current_step, 'city');
  await server.stop();
});

test('in the terminal, beside a running server', async () => {
  const { place, server } = await begin();
  const ids = [await start(server), await start(server), await start(server), await start(server)];
  await server.say(ids[1], 'Bob');
  await server.say(ids[2], 'Cid');
  await server.say(ids[2], 'Cadiz');
  await server.post(`/v1/conversations/${ids[3]}/cancel`, {});
  place.script('form', NEW); // the server has not loaded it
  let r = place.run(['conversations', 'migrate', ids[0], '--dry-run']);
  assert.equal(r.code, 0, r.err);
  assert.match(r.out, /^Nothing was stored\. .*\nname\?\n/s);
  r = place.run(['conversations', 'migrate', '--system', 'form', '--dry-run']);
  assert.equal(r.code, 1);
  assert.match(r.out, /version [0-9a-f]{16}: 2 would go there, 1 would stay behind\n$/);
  r = place.run(['conversations', 'migrate', '--system', 'form', '--json']);
  assert.equal(r.code, 1);
  const all = JSON.parse(r.out);
  assert.deepEqual([all.migrated, all.refused, all.dry_run], [2, 1, false]);
  assert.deepEqual(all.items.map((i) => [i.conversation_id, i.code]),
    [[ids[2], 'migrate.step'], [ids[1], undefined], [ids[0], undefined]]);
  const said = await server.say(ids[1], 'Berlin'); // its hot copy is stale, the version unknown
  assert.deepEqual([said.json.flow_version, said.json.current_step], [all.version, 'country']);
  assert.equal((await server.say(ids[2], '11001')).json.status, 'completed');
  assert.equal(place.run(['conversations', 'migrate', '--system', 'form']).code, 0);
  assert.equal(place.run(['conversations', 'migrate', ids[0]]).code, 0);
  r = place.run(['conversations', 'migrate', '--system', 'nothing']);
  assert.equal(r.code, 1); // as one conversation of a system that was removed
  assert.match(r.err, /there is no system 'nothing'; .* \[system\.not_found\]\n$/);
  for (const wrong of [[], [ids[0], '--system', 'form']]) {
    r = place.run(['conversations', 'migrate', ...wrong]);
    assert.equal(r.code, 2);
    assert.match(r.err, /cli\.usage/);
  }
  await server.stop();
});

// Killed anywhere, each conversation is wholly on one version or wholly on the other, and goes on.
test('killed while a system migrates', async () => {
  const { place, server } = await begin();
  const ids = [];
  for (let i = 0; i < 60; i++) {
    ids.push(await start(server));
    await server.say(ids[i], `guest ${i}`);
  }
  await server.stop();
  place.script('form', NEW);
  let moved = 0;
  for (let kills = 0; kills < 4; kills++) {
    const child = spawn(program, ['conversations', 'migrate', '--system', 'form', '--config',
      place.config], { stdio: 'ignore' });
    const ended = once(child, 'exit');
    await wait(40 + 30 * kills);
    child.kill('SIGKILL');
    await ended;
  }
  const again = await new Server(place).start();
  for (const [i, id] of ids.entries()) {
    const { flow_version: version, state } = await shown(again, id);
    const fresh = state.from !== undefined;
    moved += fresh;
    assert.equal(state.name, fresh ? `GUEST ${i}` : `guest ${i}`);
    const turn = (await again.say(id, 'Oslo')).json;
    assert.deepEqual([turn.flow_version, turn.current_step], [version, fresh ? 'country' : 'zip']);
  }
  assert.equal(place.run(['conversations', 'migrate', '--system', 'form']).code,
    moved === ids.length ? 0 : 1);
  await again.stop();
});
