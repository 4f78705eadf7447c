// Two messages at once for one conversation, as each system, or the configuration, wants it.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Outside, Place, Server, wait } from './host.mjs';

// Asks for one word after another; each is told to the outside before the next is asked for.
const script = (config) => `
local tm = require "tidemill"
local Step = tm.ConversationStep
local function tell(name, next_step)
  return Step { step_id = "tell_" .. name, step_type = "action", next_steps = { next_step },
    run = function(ctx)
      ctx.state.told = (ctx.state.told or "") .. "[" .. ctx.state[name] .. "]"
      return ctx:http { method = "POST", url = ctx.config.url, body = ctx.state[name] }
    end }
end
local function ask(name)
  return Step { step_id = "ask_" .. name, step_type = "user_input", prompt = name .. "?",
    save_as = name, input_schema = { type = "text", required = true },
    next_steps = { "tell_" .. name } }
end
return tm.system { agents = {}, config = { url = "URL" }, ${config}
  flows = { tm.ConversationFlow { flow_id = "words", start_step = "ask_first",
    steps = { ask "first", tell("first", "ask_second"), ask "second", tell("second", "ask_third"),
      ask "third", tell("third", "end") } } } }
`;
const own = (concurrency) => 'orchestrator = tm.ConversationOrchestrator { ' +
  `session_config = { concurrency = "${concurrency}" } },`;

let place, outside, server;
before(async () => {
  outside = await new Outside(() => 300).start();
  place = new Place({ shipped: false,
    config: { orchestrator: { session_config: { concurrency: 'reject' } } } });
  for (const name of ['queue', 'reject', 'merge', 'interrupt']) {
    place.script(name, script(own(name)).replace('URL', outside.url));
  }
  place.script('configured', script('').replace('URL', outside.url));
  server = await new Server(place).start();
});
after(async () => {
  assert.deepEqual(await server.stop(), { code: 0, signal: null });
  await outside.stop();
  place.remove();
});

// A first message, and others while its turn is calling the outside.
const together = async (system, others, key) => {
  const id = (await server.begin(system, 'words')).json.conversation_id;
  const before_ = outside.requests.length;
  const first = server.say(id, 'one', key ? { 'idempotency-key': key } : {});
  while (outside.requests.length === before_) await wait(2);
  const rest = others.map(([text, headers]) => server.say(id, text, headers));
  return { id, first: await first, rest: await Promise.all(rest) };
};
const state = async (id) => (await server.get(`/v1/conversations/${id}`)).json.state;
const refused = (r, code) => {
  assert.equal(r.status, 409, r.text);
  assert.equal(r.json.code, code, r.text);
};

test('queue: each answers what is asked when its turn comes', async () => {
  const { id, first, rest } = await together('queue', [['two'], ['three']]);
  assert.equal(first.json.current_step, 'ask_second', first.text);
  assert.equal(rest[0].json.current_step, 'ask_third', rest[0].text);
  assert.equal(rest[1].json.status, 'completed', rest[1].text);
  assert.equal((await state(id)).told, '[one][two][three]');
});

for (const system of ['reject', 'configured']) {
  test(`${system}: who comes meanwhile is told to wait; a repeat is none`, async () => {
    const { id, first, rest } = await together(system,
      [['two'], ['one', { 'idempotency-key': 'k' }], ['three']], 'k');
    assert.equal(first.json.current_step, 'ask_second', first.text);
    refused(rest[0], 'conversation.busy');
    assert.ok(Number(rest[0].headers['retry-after']) >= 1);
    assert.equal(rest[1].text, first.text);
    refused(rest[2], 'conversation.busy');
    const again = await server.say(id, 'two');
    assert.equal(again.json.current_step, 'ask_third', again.text);
    assert.equal((await state(id)).told, '[one][two]');
  });
}

test('merge: who waits together is answered together', async () => {
  const { id, first, rest } = await together('merge',
    [['two', { 'idempotency-key': 'a' }], ['too', { 'idempotency-key': 'b' }]]);
  assert.equal(first.json.current_step, 'ask_second', first.text);
  assert.equal(rest[0].json.current_step, 'ask_third', rest[0].text);
  assert.equal(rest[1].text, rest[0].text);
  for (const [key, text] of [['a', 'two'], ['b', 'too']]) {
    assert.equal((await server.say(id, text, { 'idempotency-key': key })).text, rest[0].text);
  }
  assert.equal((await state(id)).told, '[one][two\ntoo]');
  assert.equal((await server.get(`/v1/conversations/${id}`)).json.current_step, 'ask_third');
});

test('interrupt: the last one counts, the others never were', async () => {
  const { id, first, rest } = await together('interrupt', [['uno']]);
  refused(first, 'conversation.interrupted');
  assert.equal(rest[0].json.current_step, 'ask_second', rest[0].text);
  assert.equal((await state(id)).told, '[uno]');
  const said = (await server.get(`/v1/conversations/${id}/messages`)).json.items;
  assert.deepEqual(said.filter((m) => m.role === 'user').map((m) => m.text), ['uno']);
  const keys = outside.requests.slice(-2).map((r) => r.key);
  assert.notEqual(keys[0], keys[1]); // another call, not a repeat
  const next = await server.say(id, 'two');
  assert.equal(next.json.current_step, 'ask_third', next.text);
});
