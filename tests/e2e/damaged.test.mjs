// One damaged record stops nobody: lists, deadlines, readiness, retention and copies go on; it is
// named in the log once, by the doctor, by a copy, and to who asks for it.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { test } from 'node:test';
import { Place, Server, wait } from './host.mjs';

const system = `
local tm = require "tidemill"
return tm.system { name = "talk", agents = {}, flows = { tm.ConversationFlow {
  flow_id = "f", start_step = "ask", pattern = tm.ConversationPattern.STEP_BY_STEP_PROCESS,
  steps = { tm.ConversationStep { step_id = "ask", step_type = "user_input", prompt = "And?",
    input_schema = { type = "text" }, next_steps = { "ask" },
    on_no_input = { { after = "2s", say = "Are you still there?" } } } },
} } }
`;
const placed = (t, config = {}) => {
  const place = new Place({ shipped: false, config });
  place.script('talk', system);
  t.after(() => place.remove());
  return place;
};
const sqlite = (place, sql) => {
  const r = spawnSync('sqlite3', ['-cmd', '.timeout 5000', place.database, sql], { encoding: 'utf8' });
  assert.equal(r.status, 0, r.stderr);
  return r.stdout.trim();
};
const begin = async (server, extra) => {
  const r = await server.begin('talk', 'f', extra);
  assert.equal(r.status, 201, r.text);
  return r.json.conversation_id;
};
const ids = (r) => {
  assert.equal(r.status, 200, r.text);
  return r.json.items.map((c) => c.conversation_id);
};
const lines = (server, words) => server.errors.split('\n').filter((l) => l.includes(words));

test('a damaged head', async (t) => {
  const place = placed(t);
  const server = await new Server(place).start();
  const bad = await begin(server, { session_id: 's' }), good = await begin(server, { session_id: 's' });
  sqlite(place, `UPDATE heads SET status=99, wake_at=1 WHERE id='${bad}'`);
  assert.deepEqual(ids(await server.get('/v1/conversations')), [good]);
  const asked = async () => (await server.get(`/v1/conversations/${good}/messages`)).text;
  while (!(await asked()).includes('Are you still there?')) await wait(50);
  assert.equal((await server.get('/readyz')).status, 200);
  const refused = await server.get(`/v1/conversations/${bad}`);
  assert.equal(refused.status, 500, refused.text);
  assert.equal(refused.json.code, 'journal.damaged');
  assert.equal((await server.say(good, 'yes')).status, 200);
  assert.deepEqual(ids(await server.get('/v1/conversations?session_id=s')), [good]);
  const purged = place.run(['purge', '--dry-run']);
  assert.equal(purged.code, 0, purged.err);
  const end = await server.raw('DELETE', '/v1/sessions/s');
  assert.equal(end.json.status, 'ended', end.text);
  assert.equal((await server.get('/readyz')).status, 200);
  await server.stop();
  assert.equal(lines(server, bad).length, 1, server.errors);
  assert.equal(lines(server, 'cannot be').length, 0, server.errors);
  const doctor = place.run(['doctor', '--deep']);
  assert.equal(doctor.code, 1, doctor.out);
  assert.match(doctor.out, new RegExp(`^error: records: .*${bad}.*\\[journal.damaged\\]$`, 'm'));
  const copy = place.run(['store', 'copy', '--to', `sqlite:${join(place.dir, 'copy.db')}`, '--json']);
  assert.equal(copy.code, 1, copy.err);
  const report = JSON.parse(copy.out);
  assert.deepEqual(report.failed.map((f) => f.conversation_id), [bad]);
  assert.equal(report.copied, 1);
});

test('a session that cannot be opened', async (t) => {
  const place = placed(t, { workflow_persistence: {
    general: { enable_encryption: true, encryption_key: randomBytes(32).toString('base64') } } });
  const server = await new Server(place).start();
  for (const session_id of ['s1', 's2', 's3'])
    await begin(server, { session_id, user_id: 'me', metadata: { from: session_id } });
  const flip = `substr(user_id,1,length(user_id)-1)||iif(substr(user_id,-1)=x'00',x'01',x'00')`;
  sqlite(place, `UPDATE sessions SET user_id=CAST(${flip} AS BLOB) WHERE id='s2'`);
  const list = await server.get('/v1/sessions');
  assert.equal(list.status, 200, list.text);
  const [third, second, first] = list.json.items;
  assert.equal(second.session_id, 's2');
  assert.equal(second.unreadable, 'seal.forged');
  assert.equal(second.user_id, null);
  assert.equal(second.metadata, null);
  assert.equal(second.open_conversations, 1);
  for (const one of [first, third]) {
    assert.equal(one.user_id, 'me');
    assert.deepEqual(one.metadata, { from: one.session_id });
    assert.equal('unreadable' in one, false);
  }
  const end = await server.raw('DELETE', '/v1/sessions/s2');
  assert.equal(end.status, 200, end.text);
  assert.equal(end.json.status, 'ended');
  assert.equal(end.json.unreadable, 'seal.forged');
  assert.equal((await server.get('/v1/sessions/s2')).json.status, 'ended');
  assert.equal((await server.get('/v1/sessions?status=open')).json.items.length, 2);
  assert.equal((await server.get('/readyz')).status, 200);
  await server.stop();
  assert.match(place.run(['sessions', 'show', 's2']).out, /^unreadable +seal\.forged$/m);
  assert.equal(lines(server, 'session="s2 of').length, 1, server.errors);
});

test('a damaged session, and what has lost its name', async (t) => {
  const place = placed(t);
  const server = await new Server(place).start();
  for (const session_id of ['s1', 's2', 's3', 's4'])
    await begin(server, { session_id, user_id: 'me' });
  sqlite(place, `UPDATE sessions SET flags=-1, created=-5, look_at=1 WHERE id='s2';
    UPDATE sessions SET metadata='{"a":' WHERE id='s3';
    UPDATE sessions SET id=printf('%.200c','s') WHERE id='s4'`);
  const seen = [];
  for (let next = ''; next !== null;) {
    const page = await server.get(`/v1/sessions?limit=1${next && `&cursor=${next}`}`);
    assert.equal(page.status, 200, page.text);
    seen.push(...page.json.items);
    next = page.json.next;
  }
  assert.deepEqual(seen.map((s) => [s.session_id, s.unreadable ?? null, s.user_id]), [
    ['s3', 'session.damaged', null], ['s1', null, 'me'], ['s2', 'session.damaged', null]]);
  for (const method of ['GET', 'DELETE']) {
    const r = await server.raw(method, '/v1/sessions/s2');
    assert.deepEqual([r.status, r.json.code], [500, 'session.damaged'], r.text);
  }
  await begin(server, { session_id: 's2' }); // it goes on
  assert.equal((await server.get('/readyz')).status, 200);
  await server.stop();
  const listed = place.run(['sessions', 'list', '--json']);
  assert.equal(listed.code, 0, listed.err);
  assert.equal(JSON.parse(listed.out).items.length, 3);
  const shown = place.run(['sessions', 'show', 's2']);
  assert.notEqual(shown.code, 0);
  assert.match(shown.err, /session s2 of tenant default.*damaged/);
  const purged = place.run(['purge']);
  assert.equal(purged.code, 0, purged.err);
  const doctor = place.run(['doctor', '--deep']);
  assert.match(doctor.out, /^error: records: .*session s2 of tenant default.*\[session.damaged\]$/m);
  assert.match(doctor.out, /session s{128} of tenant default/);
  const copy = place.run(['store', 'copy', '--to', `sqlite:${join(place.dir, 'copy.db')}`, '--json']);
  assert.equal(copy.code, 1, copy.err);
  const report = JSON.parse(copy.out);
  assert.deepEqual(report.failed.map((f) => f.code), ['session.damaged', 'session.damaged']);
  assert.equal(report.copied, 5);
});
