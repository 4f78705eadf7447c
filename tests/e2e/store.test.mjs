// The store in trouble: full disk, locked, read-only, damaged, newer. Nothing is lost, and the
// conversation goes on once it is mended.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { test } from 'node:test';
import { Place, Server, wait } from './host.mjs';

const sqlite = (place, sql) => {
  const r = spawnSync('sqlite3', [place.database, sql], { encoding: 'utf8' });
  assert.equal(r.status, 0, r.stderr);
  return r.stdout.trim();
};
const begin = async (server) => {
  const r = await server.begin('customer_service', 'comprehensive_workflow');
  assert.equal(r.status, 201, r.text);
  return r.json.conversation_id;
};
const prlimit = (pid, limit) => assert.equal(
  spawnSync('prlimit', [`--pid=${pid}`, `--fsize=${limit}:unlimited`]).status, 0);

test('a full disk', async () => {
  const place = new Place();
  const server = await new Server(place).start();
  const id = await begin(server);
  prlimit(server.process.pid, 4096); // no file may grow past a page: every write fails
  const full = await server.say(id, 'Where is my parcel, please?', { 'idempotency-key': 'k' });
  assert.equal(full.status, 503, full.text);
  assert.equal(full.json.code, 'store.full');
  for (let i = 0; i < 4; i++) { // reads work, and the host reads by itself: that mends nothing
    assert.equal((await server.get('/readyz')).status, 503);
    assert.equal((await server.get(`/v1/conversations/${id}`)).json.revision, 1);
    await wait(400);
  }
  prlimit(server.process.pid, 'unlimited');
  let ready = 503; // nobody writes to a host that is not ready
  for (let i = 0; i < 100 && ready !== 200; i++) {
    await wait(50);
    ready = (await server.get('/readyz')).status;
  }
  assert.equal(ready, 200);
  const mended = await server.say(id, 'Where is my parcel, please?', { 'idempotency-key': 'k' });
  assert.equal(mended.status, 200, mended.text);
  assert.equal(mended.json.revision, 2);
  await server.kill();
  const again = await new Server(place).start();
  assert.equal((await again.get(`/v1/conversations/${id}`)).json.revision, 2);
  assert.equal(sqlite(place, 'PRAGMA integrity_check'), 'ok');
  await again.stop();
  place.remove();
});

test('a store that may not be written for a while', async () => {
  const place = new Place({ config: { workflow_persistence: { backend: 'sqlite' } } });
  place.settings.workflow_persistence.sqlite = { database_path: place.database, timeout: 0.2 };
  writeFileSync(place.config, JSON.stringify(place.settings));
  const server = await new Server(place).start();
  const id = await begin(server);
  const locker = spawn('sqlite3', [place.database], { stdio: ['pipe', 'pipe', 'inherit'] });
  locker.stdin.write('BEGIN IMMEDIATE;\nSELECT 1;\n');
  await new Promise((done) => locker.stdout.once('data', done));
  const busy = await server.say(id, 'Where is my parcel, please?');
  assert.equal(busy.status, 503, busy.text);
  assert.equal((await server.get(`/v1/conversations/${id}`)).status, 200, 'reads go on');
  locker.stdin.end('ROLLBACK;\n');
  await new Promise((done) => locker.once('exit', done));
  const mended = await server.say(id, 'Where is my parcel, please?');
  assert.equal(mended.status, 200, mended.text);
  await server.stop();
  place.remove();
});

test('damaged, foreign and newer files are refused and left untouched', async () => {
  const place = new Place();
  mkdirSync(dirname(place.database), { recursive: true });
  const refused = (bytes, pattern) => {
    writeFileSync(place.database, bytes);
    const r = place.run(['serve']);
    assert.equal(r.code, 1);
    assert.match(r.err, pattern);
    assert.deepEqual(readFileSync(place.database), Buffer.from(bytes));
  };
  refused(Buffer.alloc(9000, 'no database '), /store\.damaged/);
  const server = await new Server(place).start().catch(() => null);
  assert.equal(server, null, 'still refused');
  const good = new Place();
  const s = await new Server(good).start();
  await begin(s);
  await s.stop();
  const bytes = readFileSync(good.database);
  const scribbled = Buffer.from(bytes);
  scribbled.fill(0xa5, 100, 1200);
  refused(scribbled, /store\.damaged/);
  refused(bytes.subarray(0, statSync(good.database).size / 2), /store\.damaged/);
  sqlite(good, 'PRAGMA user_version = 999');
  refused(readFileSync(good.database), /store\.newer/);
  good.remove();
  place.remove();
});

test('what a SQL client sees', async () => {
  const place = new Place();
  const server = await new Server(place).start();
  const id = await begin(server);
  const { json: turn } = await server.say(id, 'Where is my parcel, please?');
  const said = turn.replies.find((r) => r.step_id === 'analyze_request').text;
  const step = (await server.get(`/v1/conversations/${id}/steps`)).json.items.find(
    (s) => s.step_id === 'analyze_request');
  assert.equal(step.output, said);
  assert.equal(JSON.parse(sqlite(place, `SELECT output_data FROM workflow_steps
    WHERE conversation_id = '${id}' AND step_id = 'analyze_request'`)), said);
  assert.equal(sqlite(place,
    `SELECT status, current_step FROM workflow_conversations WHERE conversation_id = '${id}'`),
  'waiting_input|get_feedback');
  assert.equal(sqlite(place, `SELECT count(*) FROM workflow_steps WHERE conversation_id = '${id}'`),
    '4');
  assert.equal(sqlite(place, 'SELECT count(*) FROM workflow_sessions'), '1');
  assert.ok(Number(sqlite(place, 'SELECT count(*) FROM workflow_checkpoints')) >= 1);
  await server.stop();
  place.remove();
});

test('a conversation in memory only says so and is gone with the process', async () => {
  const place = new Place();
  place.script('brief', `
local tm = require "tidemill"
local flow = tm.ConversationFlow { flow_id = "f", start_step = "a",
  pattern = tm.ConversationPattern.STEP_BY_STEP_PROCESS, settings = { persist_state = false },
  steps = { tm.ConversationStep { step_id = "a", step_type = "user_input", prompt = "Name?",
    input_schema = { type = "text", required = true }, save_as = "name", next_steps = { "a" } } } }
return tm.system { name = "brief", agents = {}, flows = { flow } }
`);
  let server = await new Server(place).start();
  const r = await server.begin('brief', 'f');
  assert.equal(r.json.durable, false, r.text);
  const id = r.json.conversation_id;
  const said = await server.say(id, 'Ann');
  assert.equal(said.status, 200, said.text);
  assert.equal(said.json.durable, false);
  assert.equal((await server.get(`/v1/conversations/${id}`)).json.state.name, 'Ann');
  await server.kill();
  server = await new Server(place).start();
  assert.equal((await server.get(`/v1/conversations/${id}`)).status, 404);
  await server.stop();
  place.remove();
});
