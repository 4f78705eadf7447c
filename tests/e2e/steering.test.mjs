// Steering over HTTP and by the command line: approvals, events, pause, resume and cancel; repeated,
// over a crash; commands in a chat.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { after, before, test } from 'node:test';
import { noted, Outside, Place, program, Server, wait } from './host.mjs';

// Asks for an amount, which a manager approves; waits for the money; tells the outside.
const SCRIPT = `
local tm = require "tidemill"
local Step = tm.ConversationStep
local desk = tm.AssistantAgent { user_id = "desk", system_message = "Polite." }
local pay = tm.ConversationFlow { flow_id = "pay", start_step = "ask",
  settings = { interaction_timeout = 3600, enable_rollback = true }, steps = {
  Step { step_id = "ask", step_type = "user_input", prompt = "How much?", save_as = "amount",
    input_schema = { type = "integer", required = true }, next_steps = { "approve" } },
  Step { step_id = "approve", step_type = "approval", role = "manager", prompt = "Pay {amount}?",
    save_as = "decision", next_steps = { "tell", "refuse" },
    conditional_logic = { approved = "tell", rejected = "refuse" } },
  Step { step_id = "tell", step_type = "action", next_steps = { "money" }, run = function(ctx)
    return ctx:http { method = "POST", url = ctx.config.url, json = { amount = ctx.state.amount } }
  end },
  Step { step_id = "money", step_type = "wait", event = "paid", timeout = 86400, save_as = "payment",
    next_steps = { "thank", "refuse" },
    conditional_logic = { event = "thank", timeout = "refuse" } },
  Step { step_id = "thank", step_type = "agent_response", agent = desk, prompt = "Thank.",
    response = "Got {payment.amount}.", next_steps = { "end" } },
  Step { step_id = "refuse", step_type = "agent_response", agent = desk, prompt = "Refuse.",
    response = "Nothing was paid.", next_steps = { "end" } },
} }
local colour = tm.ConversationFlow { flow_id = "colour", start_step = "ask",
  settings = { allow_step_skipping = true, allow_early_termination = true }, steps = {
  Step { step_id = "ask", step_type = "user_input", prompt = "Which colour?", save_as = "colour",
    input_schema = { type = "text", required = false }, next_steps = { "say" } },
  Step { step_id = "say", step_type = "agent_response", agent = desk, prompt = "Say it.",
    response = "It is {colour|none}.", next_steps = { "ask" } } } }
local spend = tm.ConversationFlow { flow_id = "spend", start_step = "ask",
  settings = { enable_rollback = true }, phrases = { back = { "go back" } }, steps = {
  Step { step_id = "ask", step_type = "user_input", prompt = "How much?", save_as = "amount",
    input_schema = { type = "integer", required = true }, next_steps = { "gate" } },
  Step { step_id = "gate", step_type = "approval", role = "manager", prompt = "Spend {amount}?",
    timeout = 86400, default = "approved", save_as = "decision", next_steps = { "sign" } },
  Step { step_id = "sign", step_type = "approval", role = "clerk", prompt = "Seen?",
    next_steps = { "note" } },
  Step { step_id = "note", step_type = "user_input", prompt = "Note?",
    input_schema = { type = "text" }, next_steps = { "more" } },
  Step { step_id = "more", step_type = "user_input", prompt = "More?",
    input_schema = { type = "text" }, next_steps = { "end" } } } }
local parcel = tm.ConversationFlow { flow_id = "parcel", start_step = "ask",
  settings = { enable_rollback = true }, steps = {
  Step { step_id = "ask", step_type = "user_input", prompt = "What?", save_as = "what",
    input_schema = { type = "text", required = true }, next_steps = { "hold" } },
  Step { step_id = "hold", step_type = "wait", event = "came", save_as = "came",
    next_steps = { "sign" } },
  Step { step_id = "sign", step_type = "user_input", prompt = "Signed?",
    input_schema = { type = "text" }, next_steps = { "rate" } },
  Step { step_id = "rate", step_type = "user_input", prompt = "Content?",
    input_schema = { type = "text" }, next_steps = { "end" } } } }
local table_for = tm.ConversationFlow { flow_id = "table_for", start_step = "who",
  settings = { enable_rollback = true }, interrupts = { { flow = "hours", phrases = { "hours" } } },
  steps = {
  Step { step_id = "who", step_type = "user_input", prompt = "Who?", save_as = "who",
    input_schema = { type = "text" }, next_steps = { "many" } },
  Step { step_id = "many", step_type = "user_input", prompt = "How many, {who}?",
    input_schema = { type = "integer" }, save_as = "many", next_steps = { "note" } },
  Step { step_id = "note", step_type = "user_input", prompt = "A note for {many}?",
    input_schema = { type = "text" }, next_steps = { "end" } } } }
local hours = tm.ConversationFlow { flow_id = "hours", start_step = "day", steps = {
  Step { step_id = "day", step_type = "user_input", prompt = "Which day?", save_as = "day",
    input_schema = { type = "text" }, next_steps = { "say" } },
  Step { step_id = "say", step_type = "agent_response", agent = desk, prompt = "Say it.",
    response = "On {day} all day.", next_steps = { "end" } } } }
return tm.system { agents = { desk = desk },
  flows = { pay, colour, spend, parcel, table_for, hours }, config = { url = "URL" } }
`;
const MANAGER = { 'x-tidemill-role': 'manager' };

let place, outside, server;
before(async () => {
  outside = await new Outside().start();
  place = new Place({ shipped: false });
  place.script('desk', SCRIPT.replace('URL', outside.url));
  server = await new Server(place).start();
});
after(async () => {
  assert.deepEqual(await server.stop(), { code: 0, signal: null });
  await outside.stop();
  place.remove();
});

const refused = (r, status, code) => {
  assert.equal(r.status, status, r.text);
  assert.equal(r.type, 'application/problem+json');
  assert.equal(r.json.code, code, r.text);
  return r.json.detail;
};
const fine = (r, status) => {
  assert.equal(r.status, 200, r.text);
  assert.equal(r.json.status, status, r.text);
  return r.json;
};
const steer = (id, what, body, headers) =>
  server.post(`/v1/conversations/${id}/${what}`, body, headers);
const begin = async (amount) => {
  const id = (await server.begin('desk', 'pay')).json.conversation_id;
  if (amount) fine(await server.say(id, amount), 'waiting_approval');
  return id;
};
const requests = (amount) => outside.requests.filter((r) => JSON.parse(r.body).amount === amount);

test('a role approves, an event comes, and both are repeated without effect', async () => {
  const id = await begin('30');
  refused(await server.say(id, 'please'), 409, 'conversation.not_waiting');
  refused(await steer(id, 'approval', { approved: true }), 403, 'approval.role');
  refused(await steer(id, 'approval', { approved: true }, { 'x-tidemill-role': 'clerk' }), 403,
    'approval.role');
  const decision = { approved: true, comment: 'fine', user_id: 'ada' };
  const keyed = { ...MANAGER, 'idempotency-key': 'a1' };
  const first = await steer(id, 'approval', decision, keyed);
  assert.equal(fine(first, 'waiting_event').prompt, null);
  assert.equal((await steer(id, 'approval', decision, keyed)).text, first.text);
  refused(await steer(id, 'approval', { approved: false }, keyed), 422,
    'idempotency.key_reused');
  refused(await steer(id, 'approval', decision, MANAGER), 409, 'conversation.not_waiting');
  assert.equal(requests(30).length, 1);
  refused(await steer(id, 'event', { name: 'shipped' }), 409, 'event.unexpected');
  const waits = (await server.get(`/v1/conversations/${id}`)).json;
  assert.deepEqual([waits.prompt, waits.waiting_for.event], [null, 'paid']);
  const paid = { name: 'paid', data: { amount: 30 } };
  const done = await steer(id, 'event', paid, { 'idempotency-key': 'e1' });
  assert.equal(fine(done, 'completed').replies[0].text, 'Got 30.');
  assert.equal((await steer(id, 'event', paid, { 'idempotency-key': 'e1' })).text, done.text);
  refused(await steer(id, 'event', paid), 409, 'conversation.finished');
  const { state } = (await server.get(`/v1/conversations/${id}`)).json;
  assert.deepEqual({ ...state.decision, at: 0 },
    { approved: true, comment: 'fine', user_id: 'ada', role: 'manager', at: 0 });
});

test('who rejects goes another way', async () => {
  const id = (await server.begin('desk', 'pay')).json.conversation_id;
  const asked = fine(await server.say(id, '31'), 'waiting_approval');
  assert.equal(asked.prompt, null);
  assert.equal(asked.waiting_for.role, 'manager');
  assert.match(asked.waiting_for.text, /31/);
  const read = (await server.get(`/v1/conversations/${id}`)).json;
  assert.deepEqual(read.waiting_for, asked.waiting_for);
  const turn = fine(await steer(id, 'approval', { approved: false }, MANAGER), 'completed');
  assert.equal(turn.replies[0].text, 'Nothing was paid.');
  assert.equal(requests(31).length, 0);
});

test('a paused conversation takes nothing until it is resumed', async () => {
  const id = await begin();
  const { prompt } = (await server.get(`/v1/conversations/${id}`)).json;
  assert.equal(fine(await steer(id, 'pause'), 'paused').prompt, null);
  refused(await server.say(id, '32'), 409, 'conversation.not_waiting');
  refused(await steer(id, 'event', { name: 'paid' }), 409, 'conversation.not_waiting');
  const again = fine(await steer(id, 'resume', {}), 'waiting_input').prompt;
  assert.ok(again.expires_at >= prompt.expires_at);
  assert.deepEqual({ ...again, expires_at: 0 }, { ...prompt, expires_at: 0 });
  refused(await steer(id, 'resume'), 409, 'conversation.not_paused');
  fine(await server.say(id, '32'), 'waiting_approval');
});

test('a repeated rollback with its key goes back once', async () => {
  const id = await begin('43');
  const keyed = { 'idempotency-key': 'back1' };
  const first = await steer(id, 'rollback', { steps: 1 }, keyed);
  assert.equal(fine(first, 'waiting_input').current_step, 'ask');
  assert.equal((await steer(id, 'rollback', { steps: 1 }, keyed)).text, first.text);
  refused(await steer(id, 'rollback', { steps: 2 }, keyed), 422, 'idempotency.key_reused');
  refused(await steer(id, 'rollback', { steps: 1 }), 409, 'rollback.nothing');
});

test('what an operator does twice is done once', async () => {
  const id = await begin();
  fine(await steer(id, 'pause'), 'paused');
  refused(await steer(id, 'pause'), 409, 'conversation.not_waiting');
  fine(await steer(id, 'resume'), 'waiting_input');
  refused(await steer(id, 'resume'), 409, 'conversation.not_paused');
  const { revision } = (await server.get(`/v1/conversations/${id}`)).json;
  fine(await steer(id, 'migrate'), 'waiting_input');
  assert.equal((await server.get(`/v1/conversations/${id}`)).json.revision, revision);
});

test('an operator cancels whatever it waits for', async () => {
  for (const id of [await begin(), await begin('33')]) {
    const first = await steer(id, 'cancel');
    fine(first, 'cancelled');
    assert.equal((await steer(id, 'cancel')).text, first.text);
    for (const what of ['pause', 'resume']) {
      refused(await steer(id, what), 409, 'conversation.finished');
    }
  }
});

test('what is said wrongly changes nothing', async () => {
  const id = await begin();
  const say = (body) => server.post(`/v1/conversations/${id}/messages`, body);
  refused(await say({ command: 'dance' }), 400, 'command.unknown');
  refused(await say({ command: 'correct', name: 'amount' }), 400, 'request.invalid');
  refused(await say({ command: 'back', input: 'x' }), 400, 'request.invalid');
  refused(await steer(id, 'approval', { approved: true, comment: 'c'.repeat(4097) }), 400,
    'request.invalid');
  refused(await steer(id, 'approval', { approved: true }, { 'x-tidemill-tenant': 'other' }), 404,
    'conversation.not_found');
  assert.equal((await server.get(`/v1/conversations/${id}`)).json.revision, 1);
});

test('what a role has decided its user does not undo, and an operator does', async () => {
  const id = (await server.begin('desk', 'spend')).json.conversation_id;
  const command = (body) => server.post(`/v1/conversations/${id}/messages`, body);
  const reject = () => steer(id, 'approval', { approved: false }, MANAGER);
  fine(await server.say(id, '44'), 'waiting_approval');
  assert.equal(fine(await command({ command: 'back' }), 'waiting_input').current_step, 'ask');
  fine(await server.say(id, '45'), 'waiting_approval');
  assert.equal(fine(await reject(), 'waiting_approval').current_step, 'sign');
  const told = refused(await command({ command: 'back' }), 409, 'rollback.decided');
  assert.match(told, /'gate' has been decided.* tidemill conversations rollback /);
  fine(await steer(id, 'approval', { approved: true }, { 'x-tidemill-role': 'clerk' }),
    'waiting_input');
  fine(await server.say(id, 'please'), 'waiting_input');
  assert.equal(fine(await server.say(id, 'Go back!'), 'waiting_input').current_step, 'note');
  assert.match((await server.say(id, 'go back')).text, /'sign' has been decided/);
  assert.match((await command({ command: 'correct', name: 'amount', input: '46' })).text,
    /cannot be corrected: the step 'gate' \(approval\) has come between/);
  const { state } = (await server.get(`/v1/conversations/${id}`)).json;
  assert.deepEqual([state.amount, state.decision.approved], [45, false]);

  const asked = fine(await steer(id, 'rollback', { steps: 2 }), 'waiting_approval').waiting_for;
  assert.ok(asked.expires_at > Date.now() + 86_000_000); // the whole time again
  fine(await reject(), 'waiting_approval');
  const r = await conversations('rollback', id, '--steps', '1');
  assert.equal(r.code, 0, r.err);
  fine(await reject(), 'waiting_approval');
  assert.equal(fine(await command({ command: 'restart' }), 'waiting_input').current_step, 'ask');
  fine(await server.say(id, '47'), 'waiting_approval');
});

test('over an event that has come its user does not go back, and an operator does', async () => {
  const id = (await server.begin('desk', 'parcel')).json.conversation_id;
  const back = () => server.post(`/v1/conversations/${id}/messages`, { command: 'back' });
  fine(await server.say(id, 'a boat'), 'waiting_event');
  assert.equal(fine(await back(), 'waiting_input').current_step, 'ask'); // nothing has come yet
  fine(await server.say(id, 'a ship'), 'waiting_event');
  fine(await steer(id, 'event', { name: 'came', data: 3 }), 'waiting_input');
  assert.match(fine(await back(), 'waiting_input').prompt.hint, /'hold' .* its event has come/);
  fine(await server.say(id, 'yes'), 'waiting_input');
  assert.equal(fine(await back(), 'waiting_input').current_step, 'sign');
  const { state } = (await server.get(`/v1/conversations/${id}`)).json;
  assert.deepEqual(state, { what: 'a ship', came: 3 });
  fine(await steer(id, 'rollback', { steps: 1 }), 'waiting_event');
});

test('one goes back over a digression answer by answer', async () => {
  const id = (await server.begin('desk', 'table_for')).json.conversation_id;
  const seen = [];
  for (const input of ['Ada', 'hours', 'Monday', '3']) {
    fine(await server.say(id, input), 'waiting_input');
    const { state, prompt } = (await server.get(`/v1/conversations/${id}`)).json;
    seen.push({ state, prompt });
  }
  assert.deepEqual(seen.map(({ prompt }) => prompt.text),
    ['How many, Ada?', 'Which day?', 'How many, Ada?', 'A note for 3?']);
  for (const was of seen.slice(0, 3).reverse()) {
    fine(await server.post(`/v1/conversations/${id}/messages`, { command: 'back' }),
      'waiting_input');
    const { state, prompt } = (await server.get(`/v1/conversations/${id}`)).json;
    assert.deepEqual({ state, prompt }, was);
  }
});

test('a decision on what was asked before is refused, by HTTP and by command', async () => {
  const id = (await server.begin('desk', 'pay')).json.conversation_id;
  const say = async (amount) =>
    fine(await server.say(id, amount), 'waiting_approval').waiting_for.revision;
  const decide = (revision) => steer(id, 'approval', { approved: true, revision }, MANAGER);
  const first = await say('50');
  fine(await server.post(`/v1/conversations/${id}/messages`, { command: 'back' }), 'waiting_input');
  const second = await say('5000');
  assert.match(refused(await decide(first), 409, 'approval.changed'), new RegExp(`revision ${second}`));
  fine(await steer(id, 'pause'), 'paused');
  assert.equal(fine(await steer(id, 'resume'), 'waiting_approval').waiting_for.revision, second);
  fine(await steer(id, 'approval', { approved: false, revision: second }, MANAGER), 'completed');
  const third = fine(await steer(id, 'rollback', { steps: 1 }), 'waiting_approval').waiting_for;
  refused(await decide(second), 409, 'approval.changed');
  assert.deepEqual((await server.get(`/v1/conversations/${id}`)).json.waiting_for, third);
  await server.stop();
  server = await new Server(place).start();
  refused(await decide(second), 409, 'approval.changed');

  const copy = (await steer(id, 'fork', {})).json;
  assert.ok(copy.waiting_for.revision !== third.revision);
  refused(await steer(copy.conversation_id, 'approval', { approved: true, revision:
    third.revision }, MANAGER), 409, 'approval.changed');
  const shown = await conversations('show', id);
  assert.match(shown.out, new RegExp(`waiting_for +manager: Pay 5000\\? \\(revision ${third.revision}\\)`));
  const by = ['--role', 'manager', '--revision'];
  const old = await conversations('approve', id, ...by, `${second}`);
  assert.equal(old.code, 1);
  assert.match(old.err, /approval\.changed/);
  assert.equal((await conversations('approve', id, ...by, 'x')).code, 2);
  assert.equal((await conversations('approve', id, ...by, `${third.revision}`)).code, 0);
});

test('a server that dies in the turn of an approval has not lost it, and calls once', async () => {
  const id = await begin('34');
  outside.delay = () => 2000;
  const lost = steer(id, 'approval', { approved: true },
    { ...MANAGER, 'idempotency-key': 'k' }).catch(() => null);
  while (requests(34).length === 0) await wait(5);
  await server.kill();
  assert.equal(await lost, null);
  outside.delay = () => 0;
  server = await new Server(place).start();
  const turn = fine(await steer(id, 'approval', { approved: true },
    { ...MANAGER, 'idempotency-key': 'k' }), 'waiting_event');
  assert.equal(turn.current_step, 'money');
  const [first, second, third] = requests(34);
  assert.equal(second.key, first.key); // its answer was not recorded: repeated, and says so
  assert.equal(third, undefined);
});

// Not waited for by blocking: the outside is in this process.
const conversations = (...args) => new Promise((done) => {
  const all = ['conversations', ...args, '--config', place.config];
  const child = spawn(program, all, { stdio: ['ignore', 'pipe', 'pipe'] });
  const said = { out: '', err: '' };
  child.stdout.on('data', (d) => { said.out += d; });
  child.stderr.on('data', (d) => { said.err += d; });
  child.on('close', (code) => { noted(said.err); done({ code, ...said }); });
});

test('the command line steers what a server has', async () => {
  const run = conversations;
  const shown = async (id) => JSON.parse((await run('show', id, '--json')).out).status;
  const id = await begin();
  let r = await run('pause', id);
  assert.equal(r.code, 0, r.err);
  assert.equal(r.out, 'The conversation is paused.\n');
  refused(await server.say(id, '41'), 409, 'conversation.not_waiting');
  assert.match((await run('resume', id)).out, /How much\?/);
  fine(await server.say(id, '41'), 'waiting_approval');
  r = await run('approve', id, '--role', 'clerk');
  assert.equal(r.code, 1);
  assert.match(r.err, /waits for the decision of the role 'manager'.* \[approval\.role\]\n$/);
  r = await run('approve', id, '--role', 'manager', '--user', 'ada', '--comment', 'fine', '--json');
  assert.equal(JSON.parse(r.out).status, 'waiting_event', r.err);
  const { state } = (await server.get(`/v1/conversations/${id}`)).json;
  assert.deepEqual({ ...state.decision, at: 0 },
    { approved: true, comment: 'fine', user_id: 'ada', role: 'manager', at: 0 });
  assert.equal((await run('event', id)).code, 2);
  assert.match((await run('event', id, 'paid', '--data', '{')).err, /\[json\.invalid\]/);
  assert.match((await run('event', id, 'paid', '--data', '{"amount":41}')).out, /Got 41\./);
  assert.equal(await shown(id), 'completed');
  const other = await begin('42');
  assert.match((await run('reject', other, '--role', 'manager')).out, /Nothing was paid\./);
  assert.equal(await shown(other), 'completed');
  const third = await begin();
  assert.equal((await run('cancel', third)).code, 0);
  assert.equal(await shown(third), 'cancelled');
  assert.match((await run('pause', third)).err, /\[conversation\.finished\]/);
  assert.match((await run('cancel', '01890000-0000-7000-8000-000000000000')).err,
    /\[conversation\.not_found\]/);
  assert.equal((await run('pause', id, '--comment', 'x')).code, 2);
});

test('a line of a chat that begins with a slash is a command', () => {
  const chat = (input) => place.run(['chat', 'desk/colour'], { input });
  let r = chat('red\n/skip\n//bin\n/dance\n/correct colour\n/help\n/cancel\nnever\n');
  assert.equal(r.code, 0, r.err);
  const said = ['It is red.', 'It is .', 'It is /bin.', '(commands are /back, /skip', 'cancel'];
  let from = 0;
  for (const one of said) {
    assert.ok(r.out.indexOf(one, from) >= from, `no "${one}" in order in:\n${r.out}`);
    from = r.out.indexOf(one, from);
  }
  assert.ok(!r.out.includes('never'), r.out);
  assert.ok(!r.out.includes('//bin'), r.out);
  const id = r.out.split('\n')[0];
  const shown = JSON.parse(place.run(['conversations', 'show', id, '--json']).out);
  assert.equal(shown.status, 'cancelled');
  r = chat('/back and forth\nblue\n');
  assert.match(r.err, /belong to the command "correct", not to "back" \[request\.invalid\]/);
  assert.match(r.out, /It is blue\./);
});
