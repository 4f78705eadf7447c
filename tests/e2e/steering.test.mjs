// Steering over HTTP: approvals, events, pause, resume and cancel; repeated, over a crash.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Outside, Place, Server, wait } from './host.mjs';

// Asks for an amount, which a manager approves; waits for the money; tells the outside.
const SCRIPT = `
local tm = require "tidemill"
local Step = tm.ConversationStep
local desk = tm.AssistantAgent { user_id = "desk", system_message = "Polite." }
local pay = tm.ConversationFlow { flow_id = "pay", start_step = "ask",
  settings = { interaction_timeout = 3600 }, steps = {
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
return tm.system { agents = { desk = desk }, flows = { pay }, config = { url = "URL" } }
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
  const id = await begin('31');
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
