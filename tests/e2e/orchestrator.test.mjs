// The words of the guide's orchestrator, as docs/scripting.md lists them: each does by HTTP and by
// the command line what it says, and its function is in the public header.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Place, Server, root } from './host.mjs';

const SYSTEM = `
local tm = require "tidemill"
local clerk = tm.AssistantAgent { user_id = "clerk" }
local orchestrator = tm.ConversationOrchestrator { registered_flows = {
  aside = tm.ConversationFlow { flow_id = "aside", start_step = "say", steps = { tm.ConversationStep {
    step_id = "say", step_type = "agent_response", agent = clerk, response = "Aside.", next_steps = { "end" } } } } } }
orchestrator:register_flow(tm.ConversationFlow { flow_id = "main", start_step = "ask",
  settings = { enable_rollback = true, max_rollback_steps = 5 }, steps = {
    tm.ConversationStep { step_id = "ask", step_type = "user_input", prompt = "Name?", save_as = "name",
      input_schema = { type = "text" }, next_steps = { "age" } },
    tm.ConversationStep { step_id = "age", step_type = "user_input", prompt = "Age, {name}?", save_as = "age",
      input_schema = { type = "text" }, next_steps = { "end" } } } })
return tm.system { agents = { clerk = clerk }, orchestrator = orchestrator }
`;

const manual = readFileSync(join(root, 'docs/scripting.md'), 'utf8');
const header = readFileSync(join(root, 'host/include/tidemill.h'), 'utf8');
const words = Object.fromEntries([...manual.matchAll(
  /^\| `(\w+)` \| `(GET|POST) (\/v1\/\S+)` \| `tidemill ([^`]+)` \| `(tm_\w+)` \|$/gm)]
  .map(([, word, method, path, line, c]) => [word, { method, path, line, c }]));

let place, server, id;
before(async () => {
  place = new Place({ shipped: false });
  place.script('shop', SYSTEM);
  server = await new Server(place).start();
});
after(async () => {
  await server?.kill();
  place?.remove();
});

// What the word does by HTTP.
const http = async (word, body) => {
  const { method, path } = words[word];
  const r = await server.raw(method, path.replace('{id}', id).replace('{s}', 'shop'), body);
  assert.ok(r.status < 300, `${word}: ${r.text}`);
  return r.json;
};

// And on the command line, with ID and N in place.
const command = (word, checkpoint, input) => {
  const args = words[word].line.replace('SYSTEM/FLOW', 'shop/main').replace('SYSTEM', 'shop')
    .replace('ID', id).replace(' N', ` ${checkpoint}`).split(' ');
  const json = args[0] === 'chat' ? [] : ['--json'];
  const r = place.run([...args, ...json], { input });
  assert.equal(r.code, 0, `${word}: ${r.err}`);
  return json.length > 0 ? JSON.parse(r.out) : r.out;
};

const fresh = async (...answers) => {
  id = (await http('start_conversation', { system: 'shop', flow_id: 'main' })).conversation_id;
  for (const input of answers) await http('continue_conversation', { input });
};
const state = async () => (await http('get_conversation_status')).state;

test('every word of the contract is in the manual, with a function of the header', () => {
  assert.deepEqual(Object.keys(words).sort(), ['cancel', 'continue_conversation', 'fork',
    'get_conversation_status', 'list_available_flows', 'list_checkpoints', 'pause_conversation',
    'resume_conversation', 'rollback_to_checkpoint', 'start_conversation']);
  for (const { c } of Object.values(words)) assert.match(header, new RegExp(`TM_API void ${c}\\(`));
});

test('list_available_flows shows what was registered', async () => {
  const ids = (list) => list.map((flow) => flow.flow_id).sort();
  const listed = await http('list_available_flows');
  assert.deepEqual(ids(listed.items), ['aside', 'main']);
  assert.deepEqual(ids(command('list_available_flows').items), ['aside', 'main']);
});

test('start_conversation, continue_conversation and get_conversation_status', async () => {
  await fresh('Ann');
  const now = await http('get_conversation_status');
  assert.deepEqual([now.status, now.current_step, now.state], ['waiting_input', 'age', { name: 'Ann' }]);
  assert.deepEqual(command('get_conversation_status'), now);
  assert.match(command('continue_conversation', 0, '7\n'), /\n/);
  assert.deepEqual(await state(), { name: 'Ann', age: '7' });
  [id] = command('start_conversation', 0, 'Bob\n').split('\n');
  assert.deepEqual(await state(), { name: 'Bob' });
});

test('list_checkpoints and rollback_to_checkpoint', async () => {
  const first = async () => {
    const { items } = await http('list_checkpoints');
    assert.deepEqual(command('list_checkpoints').items, items);
    return items.find((one) => one.step_id === 'age').checkpoint_id;
  };
  await fresh('Ann', '7');
  await http('rollback_to_checkpoint', { checkpoint_id: await first() });
  assert.deepEqual(await state(), { name: 'Ann' });
  await http('continue_conversation', { input: '8' });
  assert.equal(command('rollback_to_checkpoint', await first()).current_step, 'age');
  assert.deepEqual(await state(), { name: 'Ann' });
});

test('pause_conversation and resume_conversation', async () => {
  await fresh('Ann');
  assert.equal((await http('pause_conversation', {})).status, 'paused');
  assert.equal((await server.say(id, '7')).status, 409);
  assert.equal(command('resume_conversation').status, 'waiting_input');
  assert.equal(command('pause_conversation').status, 'paused');
  assert.equal((await http('resume_conversation', {})).status, 'waiting_input');
});

test('fork and cancel', async () => {
  await fresh('Ann');
  const origin = id;
  for (const fork of [await http('fork', {}), command('fork')]) {
    assert.notEqual(fork.conversation_id, origin);
    assert.equal(fork.current_step, 'age');
  }
  assert.equal((await http('cancel', {})).status, 'cancelled');
  await fresh();
  assert.equal(command('cancel').status, 'cancelled');
});
