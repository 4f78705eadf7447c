// The shipped system: both paths of the guide's workflow, its feedback loops, completion.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Place, Server } from './host.mjs';

let place, server;
before(async () => {
  place = new Place();
  server = await new Server(place).start();
});
after(async () => {
  assert.deepEqual(await server.stop(), { code: 0, signal: null });
  place.remove();
});

const begin = async () => {
  const r = await server.begin('customer_service', 'comprehensive_workflow', { session_id: 'e2e' });
  assert.equal(r.status, 201, r.text);
  return r.json;
};
const say = async (id, input) => {
  const r = await server.say(id, input);
  assert.equal(r.status, 200, r.text);
  return r.json;
};
const ran = async (id) => (await server.get(`/v1/conversations/${id}/steps?limit=200`))
  .json.items.reverse().map((s) => s.step_id);

test('the simple path', async () => {
  const t = await begin();
  assert.equal(t.status, 'waiting_input');
  assert.equal(t.revision, 1);
  assert.equal(t.current_step, 'identify_need');
  assert.equal(t.replies[0].step_id, 'welcome');
  assert.equal(t.replies[0].provider, 'offline');
  assert.equal(t.durable, true);
  assert.equal(t.prompt.input_schema.type, 'text');
  assert.ok(t.prompt.expires_at > Date.now());

  const short = await say(t.conversation_id, 'help');
  assert.equal(short.current_step, 'identify_need');
  assert.equal(short.prompt.attempt, 2);
  assert.match(short.prompt.hint, /10/);

  const solved = await say(t.conversation_id, 'How do I change my delivery address?');
  assert.equal(solved.current_step, 'get_feedback');
  assert.deepEqual(solved.replies.map((r) => r.step_id), ['analyze_request', 'provide_solution']);
  assert.equal(solved.prompt.input_schema.options.length, 5);

  const done = await say(t.conversation_id, '1');
  assert.equal(done.status, 'completed');
  assert.equal(done.prompt, null);
  assert.deepEqual(done.replies.map((r) => r.step_id), ['handle_feedback', 'completion']);
  const late = await server.say(t.conversation_id, 'one more thing');
  assert.equal(late.status, 409);
  assert.equal(late.json.code, 'conversation.finished');
});

test('the complex path, every feedback loop, completion', async () => {
  const { conversation_id: id } = await begin();
  const details = await say(id, 'We must migrate our whole integration with the billing system of '
    + 'three subsidiaries to the new interface before the audit, and need a plan for it.');
  assert.equal(details.current_step, 'collect_details');
  assert.equal(details.prompt.input_schema.type, 'structured');
  assert.deepEqual(details.prompt.input_schema.fields.map((f) => f.name),
    ['specific_requirements', 'timeline', 'budget_considerations']);

  const refused = await say(id, { timeline: 'whenever' });
  assert.equal(refused.current_step, 'collect_details');
  assert.equal(refused.prompt.attempt, 2);

  const presented = await say(id, { specific_requirements: 'no downtime', timeline: 'Soon (this week)' });
  assert.equal(presented.current_step, 'get_feedback');
  assert.deepEqual(presented.replies.map((r) => r.step_id), ['process_details', 'present_solution']);

  const questions = await say(id, 'Good, but I have some questions');
  assert.equal(questions.current_step, 'followup_questions');
  const answered = await say(id, 'Who signs off on the plan?');
  assert.equal(answered.current_step, 'check_satisfaction');
  assert.equal((await say(id, '2')).current_step, 'followup_questions');
  assert.equal((await say(id, 'And how long does it take?')).current_step, 'check_satisfaction');
  const other = await say(id, 'i need help with something else');
  assert.equal(other.current_step, 'identify_need');
  assert.equal((await say(id, 'Where is my last invoice?')).current_step, 'get_feedback');
  const custom = await say(id, 'It is fine, only a little slow');
  assert.notEqual(custom.current_step, 'get_feedback');
  let last = custom;
  if (last.current_step === 'followup_questions') last = await say(id, 'Can it be faster?');
  if (last.current_step === 'check_satisfaction') last = await say(id, 'yes, that covers everything');
  assert.equal(last.status, 'completed');
  const steps = await ran(id);
  for (const step of ['welcome', 'identify_need', 'analyze_request', 'collect_details',
    'process_details', 'present_solution', 'provide_solution', 'get_feedback', 'handle_feedback',
    'followup_questions', 'answer_questions', 'check_satisfaction', 'completion'])
    assert.ok(steps.includes(step), `${step} ran`);
  assert.ok(steps.filter((s) => s === 'answer_questions').length >= 2, 'a loop leaves every pass');

  const messages = (await server.get(`/v1/conversations/${id}/messages?limit=200`)).json.items;
  assert.deepEqual(messages.map((m) => m.seq), messages.map((_, i) => messages.length - i));
  const record = (await server.get(`/v1/conversations/${id}`)).json;
  assert.equal(record.status, 'completed');
  assert.equal(record.state.specific_requirements, 'no downtime');
  assert.ok((await server.get(`/v1/conversations/${id}/checkpoints`)).json.items.length >= 1);
});

test('a prompt stays open for as long as its step, else its flow, says', async () => {
  const open = (turn) => Math.round((turn.prompt.expires_at - Date.now()) / 10000) * 10;
  const t = await begin();
  assert.equal(open(t), 300);
  assert.equal(open(await say(t.conversation_id, 'How do I change my address?')), 600);
});

test('no reply claims what did not happen', async () => {
  const answers = ['We must migrate several systems', { specific_requirements: 'no downtime',
    timeline: 'today' }, 'questions', 'Who pays?', 'something_else', 'Where is my invoice?',
  'satisfied'];
  const { conversation_id: id } = await begin();
  for (const answer of answers) await say(id, answer);
  const said = (await server.get(`/v1/conversations/${id}/messages?limit=200`)).json.items
    .filter((m) => m.role === 'agent');
  const ids = new Set(said.map((m) => m.step_id));
  for (const step of ['welcome', 'analyze_request', 'process_details', 'present_solution',
    'provide_solution', 'handle_feedback', 'answer_questions', 'completion'])
    assert.ok(ids.has(step), `${step} spoke`);
  const claim = /\bI have (?!to\b)|\bwe have\b|\byour case\b|\byou (will )?(get|receive)\b|confirmation/i;
  for (const { step_id: step, text } of said) assert.doesNotMatch(text, claim, step);
});

test('lists and what is loaded', async () => {
  const a = await begin();
  const b = await begin();
  const page = await server.get('/v1/conversations?session_id=e2e&limit=1');
  assert.equal(page.json.items.length, 1);
  assert.equal(page.json.items[0].conversation_id, b.conversation_id);
  const next = await server.get(`/v1/conversations?session_id=e2e&limit=1&cursor=${page.json.next}`);
  assert.equal(next.json.items[0].conversation_id, a.conversation_id);
  const waiting = await server.get('/v1/conversations?status=waiting_input&limit=200');
  assert.ok(waiting.json.items.every((c) => c.status === 'waiting_input'));
  const other = await server.get(`/v1/conversations/${a.conversation_id}`,
    { 'x-tidemill-tenant': 'another' });
  assert.equal(other.status, 404, 'tenants never see each other');

  const systems = await server.get('/v1/systems');
  assert.ok(systems.json.items.some((s) => s.name === 'customer_service'));
  const flows = await server.get('/v1/systems/customer_service/flows');
  assert.equal(flows.json.items[0].flow_id, 'comprehensive_workflow');
  const flow = await server.get('/v1/systems/customer_service/flows/comprehensive_workflow');
  assert.equal(flow.json.steps.length, 13);
  assert.equal((await server.get('/v1/systems/nope/flows')).status, 404);
  assert.equal((await server.get('/livez')).status, 200);
  assert.equal((await server.get('/readyz')).status, 200);
});
