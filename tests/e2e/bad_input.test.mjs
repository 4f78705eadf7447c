// Bad input of every kind gets a clear error and loses nothing.
import assert from 'node:assert/strict';
import { closeSync, ftruncateSync, openSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Place, Server } from './host.mjs';

describe('HTTP', () => {
  let place, server, id;
  before(async () => {
    place = new Place({ config: { server: { body_limit: 65536 } } });
    server = await new Server(place).start();
    id = (await server.begin('customer_service', 'comprehensive_workflow')).json.conversation_id;
  });
  after(async () => {
    assert.deepEqual(await server.stop(), { code: 0, signal: null });
    place.remove();
  });

  const refused = (r, status, code) => {
    assert.equal(r.status, status, r.text);
    assert.match(r.type, /^application\/problem\+json/);
    assert.equal(r.json.status, status);
    if (code) assert.equal(r.json.code, code, r.text);
    assert.ok(r.json.detail.length > 10, 'says what is wrong');
  };
  const messages = () => `/v1/conversations/${id}/messages`;

  test('bodies', async () => {
    refused(await server.post(messages(), '{"input": '), 400, 'json.invalid');
    refused(await server.post(messages(), ''), 400);
    refused(await server.post(messages(), new Uint8Array([0x7b, 0x22, 0xff, 0xfe, 0x22, 0x7d])), 400,
      'json.invalid');
    refused(await server.post(messages(), '{"input":"a","input":"b"}'), 400, 'json.invalid');
    refused(await server.post(messages(), `{"input":${'['.repeat(500)}${']'.repeat(500)}}`), 400);
    refused(await server.post(messages(), '[1]'), 400);
    refused(await server.post(messages(), { input: null }), 400);
    refused(await server.post(messages(), { input: 5 }), 400);
    refused(await server.post(messages(), { input: true }), 400);
    refused(await server.post(messages(), { input: ['a'] }), 400);
    refused(await server.post(messages(), { imput: 'a' }), 400);
    refused(await server.post(messages(), {}), 400);
    refused(await server.post(messages(), { input: 'x'.repeat(70000) }), 413);
    refused(await server.post('/v1/conversations', { system: 7, flow_id: 'x' }), 400);
    refused(await server.post('/v1/conversations', { system: 'customer_service' }), 400);
    refused(await server.post('/v1/conversations', { system: 'nope', flow_id: 'x' }), 404,
      'system.not_found');
    const flow = await server.begin('customer_service', 'nope');
    refused(flow, 404, 'flow.not_found');
    assert.match(flow.json.detail, /comprehensive_workflow/, 'names what there is');
    refused(await server.begin('customer_service', 'comprehensive_workflow', { metadata: 'x' }), 400);
    refused(await server.begin('customer_service', 'comprehensive_workflow',
      { session_id: 's'.repeat(500) }), 400);
    const now = await server.get(`/v1/conversations/${id}`);
    assert.equal(now.json.revision, 1, 'nothing of this was a turn');
  });

  test('conversations and routes', async () => {
    refused(await server.say('0199aaaa-0000-7000-8000-000000000000', 'a'), 404,
      'conversation.not_found');
    refused(await server.say('not-an-id', 'a'), 404);
    refused(await server.get('/v1/nothing'), 404);
    refused(await server.raw('DELETE', '/v1/conversations'), 405);
    refused(await server.get('/v1/conversations?limit=0'), 400);
    refused(await server.get('/v1/conversations?status=busy'), 400);
    assert.equal((await server.get('/v1/conversations?session_id=&status=&limit=5')).status, 200);
    refused(await server.get(`/v1/conversations/${id}/steps?cursor=%25%25`), 400, 'cursor.invalid');
    refused(await server.post(messages(), { input: 'a' }, { 'idempotency-key': 'k'.repeat(900) }), 400);
    refused(await server.get(`/v1/conversations/${id}%2fsteps`), 404, 'conversation.not_found');
    refused(await server.get(`/v1/conversations/${id}%00`), 400, 'request.target');
    refused(await server.get('/v1/conversations?session_id=a%00b'), 400, 'request.target');
    refused(await server.get('/v1/conversations?limit=1&limit=2'), 400, 'request.query');
    refused(await server.post(messages(), { input: 'a' }, { 'content-encoding': 'gzip' }), 415,
      'request.content_encoding');
  });

  // Sends bytes as they are; everything that comes back until the other side closes.
  const wire = (text) => new Promise((done, fail) => {
    let got = '';
    const socket = connect(Number(new URL(server.url).port), '127.0.0.1', () => socket.write(text));
    socket.on('data', (d) => { got += d; });
    socket.on('close', () => done(got));
    socket.on('error', fail);
    socket.setTimeout(5000, () => { socket.destroy(); fail(new Error(`still open after: ${got}`)); });
  });
  test('requests that two readers would read differently', async () => {
    const hidden = 'GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n';
    for (const headers of ['Content-Length: 0\r\nContent-Length: 44', 'Content-Length : 44',
      'Transfer-Encoding: chunked\r\nContent-Length: 5', 'Transfer-Encoding: gzip']) {
      const got = await wire(`POST ${messages()} HTTP/1.1\r\nHost: localhost\r\n${headers}\r\n\r\n`
        + hidden);
      assert.match(got, /^HTTP\/1\.1 (400|501) /, headers);
      assert.match(got, /application\/problem\+json/);
      assert.equal(got.split('HTTP/1.1 ').length, 2, `one answer, not more: ${got}`);
    }
    const twice = await wire(`GET /v1/conversations/${id} HTTP/1.1\r\nHost: localhost\r\n`
      + 'X-Tidemill-Tenant: default\r\nX-Tidemill-Tenant: other\r\nConnection: close\r\n\r\n');
    assert.match(twice, /^HTTP\/1\.1 400 .*request\.header/s);
    assert.equal((await server.get('/livez')).status, 200);
  });

  test('idempotency keys', async () => {
    const headers = { 'idempotency-key': 'one' };
    const bad = await server.say(id, ['x'], headers);
    assert.equal(bad.status, 400);
    const first = await server.say(id, 'Where is my parcel, please?', headers);
    assert.equal(first.status, 200, 'an answer of 4xx does not consume a key');
    assert.equal((await server.say(id, 'Where is my parcel, please?', headers)).text, first.text);
    refused(await server.say(id, 'Something else altogether', headers), 422,
      'idempotency.key_reused');
    const [a, b] = await Promise.all([1, 2].map(() => server.begin('customer_service',
      'comprehensive_workflow', {}, { 'idempotency-key': 'start' })));
    assert.equal(a.status, 201);
    assert.equal(a.text, b.text, 'two starts at once are one conversation');
    refused(await server.begin('customer_service', 'comprehensive_workflow', { user_id: 'u' },
      { 'idempotency-key': 'start' }), 422);
  });
});

describe('configuration', () => {
  const with_config = (text, args = ['config']) => {
    const place = new Place();
    writeFileSync(place.config, text);
    const r = place.run(args);
    place.remove();
    return r;
  };
  const fails = (text, pattern) => {
    const r = with_config(text);
    assert.equal(r.code, 1, r.err);
    assert.match(r.err, pattern);
  };
  test('wrong YAML', () => {
    fails('server:\n\tlisten: x\n', /agent_config\.yaml:2/);
    fails('server:\n  lease: 3\n  lease: 4\n', /agent_config\.yaml:3.*lease/s);
    fails('a: '.repeat(1) + '['.repeat(2000), /agent_config\.yaml:1/);
    const laughs = ['a0: &a0 [x,x]'];
    for (let i = 1; i < 30; i++) laughs.push(`a${i}: &a${i} [*a${i - 1},*a${i - 1}]`);
    fails(laughs.join('\n'), /agent_config\.yaml:/);
    fails('server:\n  body_limit: many\n', /agent_config\.yaml:2:\d+.*body_limit/s);
    fails('workflow_persistance:\n  backend: sqlite\n', /workflow_persistence/);
    fails('llm:\n  provider: anthropic\n', /not supported yet/);
    fails('server:\n  listen: ${NO_SUCH_NAME_HERE}\n', /NO_SUCH_NAME_HERE/);
  });
  test('a huge file', () => {
    const place = new Place();
    const fd = openSync(place.config, 'w');
    ftruncateSync(fd, 100 * 1024 * 1024);
    closeSync(fd);
    const r = place.run(['config'], { timeout: 5000 });
    assert.equal(r.code, 1);
    assert.match(r.err, /agent_config\.yaml.*(large|big|size|MiB)/is);
    place.remove();
  });
  test('the environment is stronger and converted', () => {
    const place = new Place();
    const r = place.run(['config', '--json'], { env: {
      AMBIVO_AGENTS_WORKFLOW_PERSISTENCE_GENERAL_CHECKPOINT_INTERVAL: '45' } });
    const item = JSON.parse(r.out).items.find(
      (i) => i.key === 'workflow_persistence.general.checkpoint_interval');
    assert.equal(item.value, 45);
    assert.match(item.origin, /^env/);
    const bad = place.run(['config'], { env: {
      AMBIVO_AGENTS_WORKFLOW_PERSISTENCE_SQLITE_ENABLE_WAL: 'perhaps' } });
    assert.equal(bad.code, 1);
    assert.match(bad.err, /AMBIVO_AGENTS_WORKFLOW_PERSISTENCE_SQLITE_ENABLE_WAL/);
    place.remove();
  });
});

describe('scripts', () => {
  const flow = (steps, more = '') => `
local tm = require "tidemill"
${more}
local flow = tm.ConversationFlow { flow_id = "f", pattern = tm.ConversationPattern.STEP_BY_STEP_PROCESS,
  start_step = "a", steps = { ${steps} } }
return tm.system { name = "bad", agents = {}, flows = { flow } }
`;
  const refused = (text, pattern) => {
    const place = new Place({ shipped: false });
    place.script('bad', text);
    const served = place.run(['serve']);
    assert.equal(served.code, 1, served.out + served.err);
    assert.match(served.err, pattern);
    const checked = place.run(['check']);
    assert.equal(checked.code, 1);
    assert.match(checked.out, pattern);
    place.remove();
  };
  test('a syntax error', () => refused('local x = = 1', /bad\/init\.lua:1/));
  test('an endless loop at load', () => refused('while true do end', /bad\/init\.lua:1|limit/));
  test('an endless loop in pcall', () => refused(
    'while true do pcall(function() while true do end end) end', /limit/));
  test('a huge table', () => refused(
    'local t = {} for i = 1, 1e9 do t[i] = { i } end', /memory/));
  test('a missing agent', () => refused(flow(`tm.ConversationStep { step_id = "a",
    step_type = "agent_response", agent = "ghost", prompt = "x", next_steps = { "end" } }`),
  /bad\/init\.lua:\d+.*ghost/s));
  test('a missing step', () => refused(flow(`tm.ConversationStep { step_id = "a",
    step_type = "user_input", prompt = "x", input_schema = { type = "text" },
    next_steps = { "nowhere" } }`), /bad\/init\.lua:\d+.*nowhere/s));
  test('an unknown key', () => refused(flow(`tm.ConversationStep { step_id = "a",
    step_type = "user_input", promt = "x", input_schema = { type = "text" },
    next_steps = { "end" } }`), /promt.*prompt/s));
  test('a key of a later version', () => refused(flow(`tm.ConversationStep { step_id = "a",
    step_type = "database_query", prompt = "x", next_steps = { "end" } }`), /not supported yet/));
  test('requiring what is not its own', () => refused('local h = require "host.journal"',
    /host\.journal/));
});
