// Retention and sessions as users see them: `purge` beside a running server, `sessions`, their API.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Outside, Place, Server } from './host.mjs';

const SYSTEM = `local tm = require "tidemill"
return tm.system { agents = {}, orchestrator = { session_config = { session_prefix = "desk_" } },
  flows = { tm.ConversationFlow { flow_id = "ask", start_step = "ask", end_steps = { "ask" },
    settings = { enable_rollback = true }, steps = {
      tm.ConversationStep { step_id = "ask", step_type = "user_input", prompt = "So?",
        input_schema = { type = "text", required = true } } } } } }`;

const begun = async (server, more = {}, headers = {}) => {
  const r = await server.post('/v1/conversations', { system: 'desk', flow_id: 'ask', ...more }, headers);
  assert.equal(r.status, 201, JSON.stringify(r.json));
  return r.json;
};
const say = (server, id) => server.post(`/v1/conversations/${id}/messages`, { input: 'yes' });

test('purge removes beside a running server what is due, and nothing else', async () => {
  const place = new Place({ shipped: false,
    config: { workflow_persistence: { retention: { conversation_ttl: '1ms' } } } });
  place.script('desk', SYSTEM);
  const server = await new Server(place).start();
  const open = await begun(server), over = await begun(server);
  assert.equal((await say(server, over.conversation_id)).json.status, 'completed');
  const dry = place.run(['purge', '--dry-run']);
  assert.equal(dry.out, 'would be removed: 1 conversation, 0 sessions\n', dry.err);
  assert.equal((await server.get(`/v1/conversations/${over.conversation_id}`)).status, 200);
  const real = place.run(['purge', '--json']);
  assert.deepEqual(JSON.parse(real.out),
    { dry_run: false, conversations: 1, sessions: 0, sessions_ended: 0, versions: 0,
      events: 0 }, real.err);
  const gone = await server.get(`/v1/conversations/${over.conversation_id}`);
  assert.equal(gone.status, 404);
  assert.equal(gone.json.code, 'conversation.not_found');
  assert.equal((await say(server, over.conversation_id)).status, 404);
  assert.equal((await say(server, open.conversation_id)).json.status, 'completed');
  await server.stop();
  place.remove();
});

test('sessions are listed, shown and ended, by HTTP and in the terminal, tenants apart', async () => {
  const place = new Place({ shipped: false });
  place.script('desk', SYSTEM);
  const server = await new Server(place).start();
  const own = await begun(server);
  assert.match(own.session_id, /^desk_[0-9a-f-]{36}$/);
  const conversations = [];
  for (let i = 0; i < 40; i++) // more than are cancelled at once
    conversations.push((await begun(server, { session_id: 's 1', user_id: 'ann', metadata: { a: 1 } })).conversation_id);
  await begun(server, { session_id: 's 1' }, { 'x-tidemill-tenant': 'other' });
  const one = (await server.get('/v1/sessions/s%201')).json;
  assert.deepEqual({ ...one, created: 0, last_activity: 0 }, { session_id: 's 1', user_id: 'ann',
    metadata: { a: 1 }, status: 'open', open_conversations: 40, created: 0, last_activity: 0,
    ended: null });
  assert.ok(one.last_activity >= one.created);
  const page = (await server.get('/v1/sessions?limit=1')).json;
  assert.equal(page.items[0].session_id, 's 1');
  const next = (await server.get(`/v1/sessions?limit=1&cursor=${page.next}`)).json;
  assert.equal(next.items[0].session_id, own.session_id);
  assert.equal(next.next, null);
  assert.equal((await server.get('/v1/sessions?cursor=zz')).json.code, 'cursor.invalid');
  assert.equal((await server.get('/v1/sessions?status=odd')).json.code, 'request.query');
  const foreign = (await server.get(`/v1/sessions/${own.session_id}`, { 'x-tidemill-tenant': 'other' }));
  assert.equal(foreign.status, 404);
  assert.equal(foreign.json.code, 'session.not_found');
  const listed = place.run(['sessions', 'list']);
  assert.match(listed.out, /^s 1  open, 40 open conversations$/m, listed.err);
  for (const line of listed.out.split('\n')) assert.ok(line.length <= 80, line);

  const ended = await server.raw('DELETE', '/v1/sessions/s%201');
  assert.equal(ended.status, 200, JSON.stringify(ended.json));
  assert.equal(ended.json.status, 'ended');
  assert.equal(ended.json.open_conversations, 0);
  assert.equal((await server.raw('DELETE', '/v1/sessions/s%201')).json.ended, ended.json.ended);
  for (const id of conversations)
    assert.equal((await server.get(`/v1/conversations/${id}`)).json.status, 'cancelled');
  assert.equal((await server.get('/v1/sessions/s%201', { 'x-tidemill-tenant': 'other' })).json.status, 'open');
  assert.deepEqual((await server.get('/v1/sessions?status=ended')).json.items.map((s) => s.session_id), ['s 1']);
  await begun(server, { session_id: 's 1' }); // opens it again
  assert.equal((await server.get('/v1/sessions/s%201')).json.status, 'open');

  const end = place.run(['sessions', 'end', own.session_id, '--json']);
  assert.equal(JSON.parse(end.out).status, 'ended', end.err);
  assert.match(place.run(['sessions', 'show', own.session_id]).out, /^status +ended$/m);
  const nobody = place.run(['sessions', 'end', 'nobody']);
  assert.equal(nobody.code, 1);
  assert.match(nobody.err, /session\.not_found/);
  assert.equal(place.run(['sessions', 'list', '--status', 'odd']).code, 2);
  assert.equal((await say(server, own.conversation_id)).json.code, 'conversation.finished');
  await server.stop();
  place.remove();
});

test('a start over the limit of sessions is refused with a hint, and counts for nothing', async () => {
  const place = new Place({ shipped: false, config: { orchestrator: {
    session_config: { max_concurrent_sessions: 2 } } } });
  place.script('desk', SYSTEM);
  const server = await new Server(place).start();
  await begun(server, { session_id: 'a' });
  await begun(server, { session_id: 'b' });
  const request = () => server.post('/v1/conversations', { system: 'desk', flow_id: 'ask',
    session_id: 'c' }, { 'idempotency-key': 'k' });
  const over = await request();
  assert.equal(over.status, 429);
  assert.equal(over.json.code, 'session.limit');
  assert.ok(over.json.retry_after > 0);
  await begun(server, { session_id: 'a' });
  assert.equal((await server.raw('DELETE', '/v1/sessions/b')).status, 200);
  assert.equal((await request()).status, 201);
  await server.stop();
  place.remove();
});

test('the end of a session waits for the turn that runs', async () => {
  const outside = await new Outside(() => 300).start();
  const place = new Place({ shipped: false });
  place.script('desk', `local tm = require "tidemill"
return tm.system { agents = {}, flows = { tm.ConversationFlow { flow_id = "ask", start_step = "ask",
  steps = {
    tm.ConversationStep { step_id = "ask", step_type = "user_input", prompt = "So?",
      input_schema = { type = "text", required = true }, next_steps = { "call" } },
    tm.ConversationStep { step_id = "call", step_type = "action", next_steps = { "ask" },
      run = function(ctx) return ctx:http { method = "POST", url = "${outside.url}/", json = {} } end },
  } } } }`);
  const server = await new Server(place).start();
  const { conversation_id: id } = await begun(server, { session_id: 's' });
  const turn = say(server, id);
  while (outside.requests.length === 0) await new Promise(setImmediate);
  const ended = await server.raw('DELETE', '/v1/sessions/s');
  assert.equal(ended.json.status, 'ended', ended.text);
  assert.equal((await turn).json.status, 'waiting_input'); // it was let through
  assert.equal((await server.get(`/v1/conversations/${id}`)).json.status, 'cancelled');
  assert.equal(outside.requests.length, 1);
  await server.stop();
  await outside.stop();
  place.remove();
});
