// The examples of docs/patterns.md, as they stand there: each passes `check`, and its conversation is
// led through a real process that is killed and begun anew at every answer.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Place, Server, root } from './host.mjs';

const manual = readFileSync(join(root, 'docs/patterns.md'), 'utf8');
const examples = Object.fromEntries([...manual.matchAll(/^## (\w+)\n[^]*?```lua\n([^]*?)```/gm)]
  .map(([, name, text]) => [name, text]));

const decision = (role, approved) => ({ role, approval: { approved } });

// What comes in, an answer or a decision, and what is said to it; first what is said at the start.
const talks = {
  step_by_step_process: [['Which tea?'], ['Assam', 'Assam it is.']],
  simple_chat: [['What can I do for you?'], ['Hello', 'You said: Hello', 'Anything else?'],
    ['Tea', 'You said: Tea', 'Anything else?'], ['no', 'See you.']],
  information_gathering: [['Your name?'], ['Ada', 'How many seats?'],
    ['4', 'A table of 4 for Ada?'], ['no', 'Which answer is to be changed?'],
    ['seats', 'How many seats?'], ['5', 'A table of 5 for Ada?'], ['yes', 'Your table is T5.']],
  decision_tree: [['What does not work?'], ['the lamp', 'Is the bulb new?'],
    ['no', 'Change the bulb.']],
  approval_workflow: [['What do you need?'], ['a chair'],
    [decision('lead', false), 'It was not approved.', 'What do you need?'], ['a stool'],
    [decision('lead', true)], [decision('accounts', true), 'Done: order of a stool']],
  database_interaction: [['Which room?'], ['9', 'There is no room 9.', 'Which other room?'],
    ['7', 'Room 7 is the Garden.', 'Shall I book the Garden?'], ['no', 'Which other room?'],
    ['8', 'Room 8 is the Tower.', 'Shall I book the Tower?'],
    ['yes', 'Your booking is B8.', 'Which other room?'], ['none', 'See you.']],
  multi_agent_collaboration: [['What is it about?'],
    ['Soup', 'Soup: with salt. ', 'Soup: without. ', 'Soup: with salt. Soup: without. ',
      'Soup: without. Soup: with salt. ', 'After 2 rounds: Soup: with salt. ']],
  'multi_agent_collaboration/in_turn': [['What is it about?'],
    ['leek', 'Soup of leek', 'Soup of leek, hot']],
  'multi_agent_collaboration/agree': [['What is it about?'],
    ['Lunch', 'Soup!', 'Well...', 'Soup!', 'Well...', 'In round 2: soup']],
  'multi_agent_collaboration/parts': [['What is it about?'],
    ['leek and beet', 'boiled leek', 'boiled beet', 'fresh and',
      'Today: boiled leek, fresh and, boiled beet']],
};

let place, server;
before(() => {
  place = new Place({ shipped: false });
  for (const [name, text] of Object.entries(examples)) place.script(name, text);
});
after(async () => {
  await server?.kill();
  place?.remove();
});

test('every example is led through here, and has no findings', () => {
  assert.deepEqual(Object.keys(examples).sort(), [...new Set(Object.keys(talks)
    .map((name) => name.split('/')[0]))].sort());
  const r = place.run(['check']);
  assert.equal(r.code, 0, r.out + r.err);
  assert.doesNotMatch(r.out, /warning:|error:/);
});

// What a turn said: its replies, then what it asks.
const told = (r) => [...(r.json?.replies ?? []).map((one) => one.text),
  ...(r.json?.prompt ? [r.json.prompt.text] : [])];

const answer = (id, given) => (given?.approval
  ? server.post(`/v1/conversations/${id}/approval`, given.approval,
    { 'x-tidemill-role': given.role })
  : server.say(id, given));

for (const [name, [[...greeting], ...turns]] of Object.entries(talks)) {
  test(`${name}, killed before every answer`, async () => {
    server = await new Server(place).start();
    const [system, flow = 'main'] = name.split('/');
    const r = await server.begin(system, flow);
    assert.deepEqual(told(r), greeting, r.text);
    for (const [given, ...expected] of turns) {
      await server.kill();
      server = await new Server(place).start();
      const next = await answer(r.json.conversation_id, given);
      assert.deepEqual(told(next), expected, next.text);
    }
    const { status } = (await server.get(`/v1/conversations/${r.json.conversation_id}`)).json;
    assert.equal(status, 'completed');
    await server.kill();
  });
}
