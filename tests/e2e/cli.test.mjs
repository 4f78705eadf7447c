// The command line: exact names, exit codes, piped chats, draining.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Outside, Place, Server, wait } from './host.mjs';

let place;
before(() => { place = new Place(); });
after(() => place.remove());

const ok = (args, options) => {
  const r = place.run(args, options);
  assert.equal(r.code, 0, r.err);
  return r.out;
};

test('help, version, wrong usage', () => {
  assert.match(ok(['--help']), /serve/);
  assert.match(ok(['chat', '--help']), /SYSTEM\/FLOW/);
  assert.match(ok(['--version']), /\d+\.\d+\.\d+/);
  const wrong = place.run(['serv']);
  assert.equal(wrong.code, 2);
  assert.match(wrong.err, /serve/);
  assert.equal(place.run(['chat']).code, 2);
  assert.equal(place.run(['systems', '--nope']).code, 2);
});

test('what is loaded, what is wrong', () => {
  assert.match(ok(['systems']), /customer_service/);
  assert.match(ok(['flows', 'customer_service']), /comprehensive_workflow/);
  assert.ok(JSON.parse(ok(['systems', '--json'])).items.length >= 1);
  assert.match(ok(['check']), /0 errors/);
  const config = JSON.parse(ok(['config', '--json'])).items;
  assert.match(config.find((i) => i.key === 'server.listen').origin, /^file/);
  for (const line of ok(['config']).split('\n')) assert.ok(line.length <= 80, line);
});

test('a chat from a pipe, left, resumed, finished', () => {
  const first = ok(['chat', 'customer_service/comprehensive_workflow', '--session', 'cli'],
    { input: 'help\nHow do I change my address?\n' });
  const id = first.match(/[0-9a-f]{8}-[0-9a-f-]{27}/)[0];
  assert.ok(first.indexOf(id) < 80, 'the conversation id is printed first');
  const shown = JSON.parse(ok(['conversations', 'show', id, '--json']));
  assert.equal(shown.status, 'waiting_input');
  assert.equal(shown.current_step, 'get_feedback');
  ok(['chat', 'customer_service/comprehensive_workflow', '--resume', id], { input: '1\n' });
  assert.equal(JSON.parse(ok(['conversations', 'show', id, '--json'])).status, 'completed');
  assert.ok(ok(['conversations', 'list']).includes(id.slice(0, 8)));
  assert.match(ok(['conversations', 'steps', id]), /identify_need/);
  assert.match(ok(['conversations', 'messages', id]), /change my address/);
  const none = place.run(['conversations', 'show', '0199aaaa-0000-7000-8000-000000000000']);
  assert.equal(none.code, 1);
  assert.match(none.err, /conversation\.not_found/);
});

test('a structured step is asked field by field', () => {
  const out = ok(['chat', 'customer_service/comprehensive_workflow'], { input:
    'We must migrate our whole integration with the billing system of three subsidiaries to the new '
    + 'interface before the audit, and need a plan.\nno downtime\n2\n\n1\n' });
  const id = out.match(/[0-9a-f]{8}-[0-9a-f-]{27}/)[0];
  const shown = JSON.parse(ok(['conversations', 'show', id, '--json']));
  assert.equal(shown.status, 'completed', out);
  assert.equal(shown.state.specific_requirements, 'no downtime');
});

test('SIGTERM drains: the running turn finishes and is answered', async () => {
  const { crashSystem } = await import('./crash_test_system.mjs');
  const outside = await new Outside(() => 300).start();
  const own = new Place({ shipped: false });
  own.script('crashy', crashSystem(outside.url));
  const server = await new Server(own).start();
  const id = (await server.begin('crashy', 'loop')).json.conversation_id;
  const answer = server.say(id, 'x');
  await wait(100);
  const started = Date.now();
  const ended = await server.stop();
  assert.deepEqual(ended, { code: 0, signal: null }, server.errors);
  assert.ok(Date.now() - started < 10000);
  const r = await answer;
  assert.equal(r.status, 200, r.text);
  assert.equal(r.json.replies.length, 2);
  await outside.stop();
  own.remove();
});

test('a slow agent holds nobody up, and a turn over the drain goes on after the restart', async () => {
  const { crashSystem } = await import('./crash_test_system.mjs');
  let slow = true;
  const outside = await new Outside((url) => (slow && url === '/b1' ? 60000 : 0)).start();
  const own = new Place({ config: { server: { workers: 1 } } });
  own.script('crashy', crashSystem(outside.url));
  let server = await new Server(own).start();
  const id = (await server.begin('crashy', 'loop')).json.conversation_id;
  const lost = server.say(id, 'x').catch(() => null);
  while (!outside.requests.some((r) => r.url === '/b1')) await wait(5);
  const started = Date.now();
  assert.equal((await server.begin('customer_service', 'comprehensive_workflow')).status, 201);
  assert.ok(Date.now() - started < 2000);
  const ended = await server.stop();
  assert.deepEqual(ended, { code: 0, signal: null }, server.errors);
  assert.ok(Date.now() - started < 10500);
  await lost;
  slow = false;
  server = await new Server(own).start();
  let now;
  do { now = (await server.get(`/v1/conversations/${id}`)).json; await wait(10); }
  while (now.status !== 'waiting_input');
  assert.equal(now.state.count, 1);
  assert.equal(outside.requests.filter((r) => r.url === '/a1').length, 1);
  await server.stop();
  await outside.stop();
  own.remove();
});
