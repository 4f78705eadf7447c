// What a script says about tenants holds against everybody: a system that demands isolation is
// served by no host without it.
import assert from 'node:assert/strict';
import test from 'node:test';
import { Place, Server } from './host.mjs';

const script = (orchestrator, name = 'shop', prompt = 'Name?') => `
local tm = require "tidemill"
local orchestrator = tm.ConversationOrchestrator { ${orchestrator} }
return tm.system { name = "${name}", agents = {}, orchestrator = orchestrator, flows = {
  tm.ConversationFlow { flow_id = "main", start_step = "ask", settings = { enable_rollback = true },
    migrate = function(state) return state end,
    steps = {
      tm.ConversationStep { step_id = "ask", step_type = "user_input", prompt = "${prompt}",
        input_schema = { type = "text" }, save_as = "name", next_steps = { "more" } },
      tm.ConversationStep { step_id = "more", step_type = "user_input", prompt = "More?",
        input_schema = { type = "text" }, save_as = "name", next_steps = { "end" } },
    } } } }
`;

const of = (tenant) => ({ 'x-tidemill-tenant': tenant });

const place_of = (t, orchestrator, config = {}) => {
  const place = new Place({ shipped: false, config });
  t.after(() => place.remove());
  place.script('shop', script(orchestrator));
  return place;
};

const serve = async (t, place) => {
  const server = await new Server(place).start();
  t.after(() => server.kill());
  return server;
};

const REFUSED = /scripts\/shop\/init\.lua:3: .*system 'shop'.*'tenant_isolation'.*tenants\.isolation: true/;

test('a system that demands isolation is loaded where tenants are isolated, and nowhere else', async (t) => {
  const place = place_of(t, 'persistence_config = { tenant_isolation = true }');
  for (const command of [['serve'], ['systems'], ['chat', 'shop/main']]) {
    const r = place.run(command);
    assert.equal(r.code, 1, r.out);
    assert.match(r.err, REFUSED);
    assert.match(r.err, /\[script\.invalid\]/);
  }
  const checked = place.run(['check']);
  assert.equal(checked.code, 1);
  assert.match(checked.out, REFUSED);

  const isolates = ['--set', 'tenants.isolation=true'];
  assert.equal(place.run(['check', ...isolates]).code, 0);
  place.settings.tenants = { isolation: true };
  place.save();
  const server = await serve(t, place);
  assert.equal((await server.begin('shop', 'main', {}, of('a'))).status, 201);
});

test('what demands isolation is not loaded anew, and what was there goes on', async (t) => {
  const place = place_of(t, 'tenant_isolation = false');
  const server = await serve(t, place);
  const id = (await server.begin('shop', 'main', {}, of('a'))).json.conversation_id;
  place.script('shop', script('tenant_isolation = true'));
  const r = await server.post('/v1/admin/reload', {});
  assert.equal(r.json.code, 'script.invalid', r.text);
  assert.match(r.json.detail, REFUSED);
  assert.equal((await server.say(id, 'x', of('a'))).status, 200);
  assert.equal((await server.begin('shop', 'main', {}, of('b'))).status, 201);
});

test('a system that does without isolation does not take it away', async (t) => {
  const place = place_of(t, 'tenant_isolation = false', { tenants: { isolation: true } });
  const server = await serve(t, place);
  assert.equal((await server.begin('shop', 'main', {}, of('a'))).status, 201);
  await server.stop();
  const r = place.run(['serve', '--set', 'tenants.isolation=false']);
  assert.match(r.err, /\[store\.isolation\]/); // it was
});

const OWNED = 'session_config = { tenant_id = "acme", session_prefix = "acme_" }';
const STRANGERS = ['umbrella', 'default', 'acm', 'acmee', 'ACME', 'acme.'];

// What a stranger hears of the system is what anybody hears of one that is not there.
const hears_nothing = async (server, name, headers) => {
  const ask = [
    (system) => server.get(`/v1/systems/${system}/flows`, headers),
    (system) => server.get(`/v1/systems/${system}/flows/main`, headers),
    (system) => server.get(`/v1/systems/${system}/flows/none`, headers),
    (system) => server.begin(system, 'main', {}, headers),
    (system) => server.begin(system, 'none', {}, headers),
    (system) => server.begin(system, 'main', { session_id: 's1', message: 'Hi' },
      { ...headers, 'idempotency-key': `k-${system}` }),
  ];
  for (const one of ask) {
    const [is, none] = [await one(name), await one('nope')];
    assert.equal(is.status, 404, is.text);
    assert.equal(is.json.code, 'system.not_found');
    assert.equal(is.text.replaceAll(name, 'nope'), none.text);
  }
  assert.ok(!(await server.get('/v1/systems', headers)).text.includes(`"${name}"`));
  for (const list of [`/v1/conversations?system=${name}`, '/v1/conversations', '/v1/sessions']) {
    assert.deepEqual((await server.get(list, headers)).json, { items: [], next: null });
  }
  assert.equal((await server.get('/v1/sessions/s1', headers)).status, 404);
};

for (const isolation of [false, true]) {
  test(`a system of one tenant is there for nobody else, isolation ${isolation}`, async (t) => {
    const place = place_of(t, OWNED, { tenants: { isolation } });
    place.script('open', script('', 'open'));
    const server = await serve(t, place);
    const mine = of('acme');
    const begun = await server.begin('shop', 'main', { session_id: 's1' }, mine);
    assert.equal(begun.status, 201, begun.text);
    assert.match((await server.begin('shop', 'main', {}, mine)).json.session_id, /^acme_/);
    const systems = (await server.get('/v1/systems', mine)).json.items;
    assert.deepEqual(systems.map((s) => [s.name, s.tenant_id]), [['open', undefined], ['shop', 'acme']]);
    assert.equal((await server.get('/v1/systems/shop/flows/main', mine)).status, 200);
    for (const stranger of STRANGERS) await hears_nothing(server, 'shop', of(stranger));
    await hears_nothing(server, 'shop', {});
    const id = begun.json.conversation_id;
    for (const [path, body] of [['messages', { input: 'x' }], ['fork', {}], ['migrate', {}]]) {
      const r = await server.post(`/v1/conversations/${id}/${path}`, body, of('umbrella'));
      assert.equal(r.json.code, 'conversation.not_found', r.text);
    }
    assert.equal((await server.begin('open', 'main', {}, of('umbrella'))).status, 201);
    assert.equal((await server.say(id, 'x', mine)).status, 200);
  });
}

test('the command line sees what its tenant sees', (t) => {
  const place = place_of(t, 'tenant_id = "acme"');
  const json = (...args) => JSON.parse(place.run([...args, '--json']).out).items;
  assert.deepEqual(json('systems'), []);
  assert.deepEqual(json('flows'), []);
  for (const args of [['flows', 'shop'], ['chat', 'shop/main'],
    ['conversations', 'migrate', '--system', 'shop']]) {
    const r = place.run(args);
    assert.equal(r.code, 1);
    assert.match(r.err, /there is no system 'shop'.*\[system\.not_found\]/);
  }
  const mine = ['--tenant', 'acme'];
  assert.deepEqual(json('systems', ...mine).map((s) => s.name), ['shop']);
  assert.deepEqual(json('flows', 'shop', ...mine).map((f) => f.flow_id), ['main']);
  const chat = place.run(['chat', 'shop/main', ...mine], { input: 'Kim\nBye\n' });
  assert.equal(chat.code, 0, chat.err);
  assert.match(chat.out, /Name\?/);
});

test('a system that is given to another tenant keeps what has begun', async (t) => {
  const place = place_of(t, '');
  const server = await serve(t, place);
  const mine = of('acme');
  const id = (await server.begin('shop', 'main', {}, mine)).json.conversation_id;
  place.script('shop', script('tenant_id = "umbrella"'));
  assert.equal((await server.post('/v1/admin/reload', {})).status, 200);
  const moved = await server.post(`/v1/conversations/${id}/migrate`, {}, mine);
  assert.equal(moved.json.code, 'system.not_found', moved.text);
  assert.equal((await server.begin('shop', 'main', {}, mine)).json.code, 'system.not_found');
  assert.equal((await server.say(id, 'Kim', mine)).json.prompt.text, 'More?');
  const fork = await server.post(`/v1/conversations/${id}/fork`, {}, mine); // on its own version
  assert.equal(fork.status, 201, fork.text);
  await hears_nothing(server, 'shop', of('default'));
  const theirs = await server.begin('shop', 'main', {}, of('umbrella'));
  assert.equal(theirs.status, 201, theirs.text);
});

test('a system of two tenants, or of none that there can be, is not loaded', (t) => {
  const place = place_of(t, 'tenant_id = "a", session_config = { tenant_id = "b" }');
  for (const command of ['serve', 'check']) {
    const r = place.run([command]);
    assert.equal(r.code, 1);
    assert.match(r.err + r.out, /init\.lua:3: .*'tenant_id' is 'a', but that of session_config is 'b'/);
  }
  place.script('shop', script(`tenant_id = "${'x'.repeat(65)}"`));
  assert.match(place.run(['serve']).err, /init\.lua:3: .*'tenant_id' must be a tenant: 1 to 64 bytes/);
});

test('where the store is, and its key, is told in agent_config.yaml', (t) => {
  const place = place_of(t, `persistence_config = { redis_host = "cache", encryption_key = "s3cret" }`);
  for (const command of ['serve', 'check']) {
    const r = place.run([command]);
    assert.equal(r.code, 1);
    assert.match(r.err + r.out, /init\.lua:3: .*'encryption_key' does not belong into a script.*encryption_key in agent_config\.yaml/);
    assert.ok(!(r.err + r.out).includes('s3cret'));
  }
  assert.match(place.run(['check']).out, /init\.lua:3: .*'redis_host' .*set workflow_persistence\.redis\.host in agent/);
});
