// The command line: exact names, exit codes, piped chats, draining.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { openSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { noted, Outside, Place, Server, program, wait } from './host.mjs';

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
  assert.match(wrong.err, /serve.*\[cli\.usage\]/s);
  assert.equal(place.run(['chat']).code, 2);
  assert.equal(place.run(['systems', '--nope']).code, 2);
  const [id] = ok(['chat', 'customer_service/comprehensive_workflow'], { input: '' }).split('\n');
  for (const [args, code] of [[['conversations', 'list', '--status', 'foo'], 'request.invalid'],
    [['conversations', 'event', id, 'paid', '--data', '{'], 'json.invalid'],
    [['backup', ''], 'store.url'], [['serve', '--listen', 'foo'], 'server.address']]) {
    const r = place.run(args);
    assert.equal(r.code, 2, r.err);
    assert.ok(r.err.includes(`[${code}]`), r.err);
  }
  const file = place.run(['check', place.config]);
  assert.equal(file.code, 1);
  assert.match(file.err, /is a file; what is wanted is the folder of a system.* \[script\.folder\]/);
});

test('help fits into 80 columns and names every option', () => {
  const all = ok(['--help']);
  const commands = all.match(/^  [a-z]+.*$/gm).map((l) => l.trim().split(' ').filter((w) => /^[a-z]/.test(w)));
  assert.ok(commands.length > 20, all);
  for (const text of [all, ok(['conversations', '--help']),
    ...commands.map((c) => ok([...c, '--help']))])
    for (const line of text.split('\n')) assert.ok(line.length <= 80, line);
  for (const text of [all, ok(['conversations', '--help']), ok(['outbox', '--help'])])
    for (const [, told] of text.matchAll(/\n((?: {6}.*\n)+)/g)) // whole sentences
      assert.match(told, /^ {6}\S[^]*\.\n$/, told);
  const valueless = place.run(['conversations', 'list', '--session', '--json']);
  assert.equal(valueless.code, 2);
  assert.match(valueless.err, /--session wants ID/);
});

test('a reader that leaves is no failure, and the answers are given; a full disk is one', async () => {
  const args = ['chat', 'customer_service/comprehensive_workflow', '--config', place.config];
  const chat = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] });
  let errors = '';
  chat.stderr.on('data', (d) => { errors += d; });
  const id = String((await once(chat.stdout, 'data'))[0]).split('\n')[0];
  chat.stdout.destroy();
  await once(chat.stdout, 'close');
  chat.stdin.end('How do I change my address?\n2\n');
  assert.deepEqual(await once(chat, 'close'), [0, null], errors);
  assert.equal(errors, '');
  const shown = JSON.parse(ok(['conversations', 'show', id, '--json']));
  assert.equal(shown.current_step, 'followup_questions');
  const full = spawnSync(program, args, { stdio: ['ignore', openSync('/dev/full', 'w'), 'pipe'],
    encoding: 'utf8' });
  assert.equal(full.status, 1);
  assert.match(noted(full.stderr), /cli\.output/);
});

test('in a terminal the end of input ends the line', () => {
  const r = spawnSync('script', ['-qec',
    `'${program}' chat customer_service/comprehensive_workflow --config '${place.config}'`,
    '/dev/null'], { input: '', encoding: 'utf8', env: { ...process.env, NO_COLOR: '1' } });
  assert.equal(r.status, 0, r.stdout);
  assert.match(r.stdout, /\n> [^\n]*\n$/);
  assert.doesNotMatch(r.stdout, /\x1b/);
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

test('check refuses a system for what it keeps, as a server does', () => {
  const own = new Place({ shipped: false, config: { limits: { memory: '8MiB' } } });
  const keep = (count) => own.script('hoard', `
local tm = require "tidemill"
local kept = {}
for i = 1, ${count} do kept[i] = ("x"):rep(99990) .. i end
return tm.system { agents = {}, flows = { tm.ConversationFlow { flow_id = "main",
  start_step = "look", steps = { tm.ConversationStep { step_id = "look", step_type = "action",
    run = function() return #kept end, next_steps = { "end" } } } } } }
`);
  keep(50);
  const refused = own.run(['check', '--json']);
  assert.equal(refused.code, 1, refused.out);
  assert.deepEqual(JSON.parse(refused.out).items.map((i) => i.rule), ['script.memory']);
  assert.match(own.run(['systems']).err, /may be kept.*\[script\.memory\]/);
  keep(10);
  assert.equal(own.run(['check']).code, 0);
  own.remove();
});

test('a folder that cannot be a system is a finding, and hides no other', () => {
  const own = new Place({ shipped: false });
  own.script('my shop', 'return 1');
  own.script('tea', 'return = 1');
  const r = own.run(['check']);
  assert.equal(r.code, 1);
  assert.match(r.out, /my shop\/init\.lua:1: error: .*named by its folder.* \[script\.name\]\n/);
  assert.match(r.out, /tea\/init\.lua:1: error: .* \[script\]\n2 systems, 2 errors, 0 warnings\n$/);
  assert.equal(r.err, '');
  own.remove();
});

test('a server without any system says so', async () => {
  const own = new Place({ shipped: false });
  const server = await new Server(own).start();
  await server.stop();
  assert.match(server.errors, /warning no system found/);
  const where = own.run(['check', `${own.dir}/scripts`]);
  assert.match(where.err, /no system found in .*\/scripts: a system is .* \[script\.none\]\n/);
  const none = own.run(['flows', 'nope']);
  assert.equal(none.code, 1);
  assert.match(none.err, /no system 'nope'; `tidemill systems` lists/);
  own.remove();
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
  const foreign = place.run(['chat', 'ecommerce/other', '--resume', id]);
  assert.equal(foreign.code, 1);
  assert.match(foreign.err, /cli\.flow/);
  const none = place.run(['conversations', 'show', '0199aaaa-0000-7000-8000-000000000000']);
  assert.equal(none.code, 1);
  assert.match(none.err, /conversation\.not_found/);
});

test('what is piped while somebody else is waited for is taken or refused', () => {
  place.script('pay', `
local tm = require "tidemill"
local Step = tm.ConversationStep
return tm.system { agents = {}, flows = { tm.ConversationFlow { flow_id = "main", start_step = "ask",
  settings = { allow_early_termination = true }, phrases = { cancel = { "stop" } }, steps = {
    Step { step_id = "ask", step_type = "user_input", prompt = "What?",
      input_schema = { type = "text" }, next_steps = { "ok" } },
    Step { step_id = "ok", step_type = "approval", role = "boss", prompt = "Pay?",
      next_steps = { "end" } },
  } } } }
`);
  const begin = () => {
    const id = ok(['chat', 'pay/main'], { input: 'tea\n' }).split('\n')[0];
    assert.equal(status(id), 'waiting_approval');
    return id;
  };
  const status = (id) => JSON.parse(ok(['conversations', 'show', id, '--json'])).status;
  for (const line of ['/cancel', 'stop']) {
    const id = begin();
    ok(['chat', '--resume', id], { input: `${line}\n` });
    assert.equal(status(id), 'cancelled');
  }
  const id = begin();
  for (const [line, code] of [['yes', 'conversation.not_waiting'], ['/help', 'command.refused']]) {
    const r = place.run(['chat', '--resume', id], { input: `${line}\n/cancel\n` });
    assert.equal(r.code, 1, r.out);
    assert.ok(r.err.includes(`[${code}]`), r.err);
  }
  assert.equal(status(id), 'waiting_approval');
  ok(['chat', '--resume', id], { input: '' });
});

test('what is piped cannot steer the terminal, and no line is lost or taken for another', () => {
  const out = ok(['chat', 'customer_service/comprehensive_workflow'], { input: Buffer.concat([
    Buffer.from(`${'x'.repeat(70000)}\n\n`), Buffer.from([0xff, 0x0a]),
    Buffer.from('\x1b[31mHow do I change it?\x1b[0m\r\n6 \u{1F4E6}')]) });
  assert.doesNotMatch(out, /[\x00-\x09\x0b-\x1f\x7f]/);
  assert.match(out, /\(an answer has at most 65536 bytes\)\n> \n.*needed/s);
  assert.match(out, /\(that is not valid UTF-8\)\n> \?\[31mHow do I change it\?\?\[0m\n/);
  assert.match(out, /\n> 6 \u{1F4E6}\n/u);
  const id = out.slice(0, 36);
  const { state } = JSON.parse(ok(['conversations', 'show', id, '--json']));
  assert.equal(state.user_request, '\x1b[31mHow do I change it?\x1b[0m');
  assert.equal(state.feedback, '6 \u{1F4E6}');
  assert.doesNotMatch(ok(['conversations', 'show', id]), /\x1b/);
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

test('SIGTERM ends a server whose scripts do not end loading', async () => {
  const own = new Place({ shipped: false, config: { limits: { load_time: '60s' } } });
  own.script('slow', 'while true do end');
  const server = new Server(own);
  const started = server.start().catch((e) => e);
  while (!server.end) await wait(5);
  await wait(300); // it is loading by now
  const begun = Date.now();
  assert.deepEqual(await server.stop(), { code: 0, signal: null });
  assert.ok(Date.now() - begun < 5000);
  assert.ok(await started instanceof Error);
  own.remove();
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
