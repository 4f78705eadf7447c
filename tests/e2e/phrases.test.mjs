// What users say instead of answers, with a real process: by API and in a chat, and where it is
// refused; a host that dies while it runs an answer again.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Outside, Place, Server, wait } from './host.mjs';

const SYSTEM = (url) => `
local tm = require "tidemill"
local Step = tm.ConversationStep
local desk = tm.AssistantAgent { user_id = "desk", system_message = "Polite." }
local SETTINGS = { enable_rollback = true, max_rollback_steps = 3, allow_step_skipping = true,
  allow_early_termination = true }
local PHRASES = { help = { "?" }, cancel = { "stop" }, back = { "go back" }, skip = { "next" },
  correct = { "change {name} to {input}" } }

local function flow(id, steps)
  return tm.ConversationFlow { flow_id = id, start_step = steps[1].step_id, settings = SETTINGS,
    phrases = PHRASES, steps = steps }
end

return tm.system { name = "desk", agents = { desk = desk },
  orchestrator = { error_config = { auto_recovery = true } }, flows = {
  flow("note", {
    Step { step_id = "choose", step_type = "user_input", prompt = "Then?", save_as = "choice",
      input_schema = { type = "choice", options = { "Stop!", "Go on" }, required = true },
      next_steps = { "note" } },
    Step { step_id = "note", step_type = "user_input", prompt = "Note?", save_as = "note",
      input_schema = { type = "text" }, next_steps = { "form" } },
    Step { step_id = "form", step_type = "user_input", prompt = "Form.", save_as = "form",
      input_schema = { type = "structured", fields = {
        { name = "number", type = "integer", prompt = "How many?" },
        { name = "extra", type = "text", prompt = "What else?" },
        { name = "name", type = "text", prompt = "Who?", required = true } } },
      next_steps = { "say" } },
    Step { step_id = "say", step_type = "agent_response", agent = desk, prompt = "Say.",
      response = "{form.number} for {form.name}: {note|nothing}.", next_steps = { "last" } },
    Step { step_id = "last", step_type = "user_input", prompt = "Fine?",
      input_schema = { type = "text" }, next_steps = { "end" } },
  }),
  flow("send", {
    Step { step_id = "ask", step_type = "user_input", prompt = "Where to?", save_as = "place",
      input_schema = { type = "text", required = true }, next_steps = { "send" } },
    Step { step_id = "send", step_type = "action", irreversible = false, next_steps = { "inner" },
      run = function(ctx)
        return ctx:http { method = "POST", url = "${url}/send", json = { to = ctx.state.place } }
      end },
    Step { step_id = "inner", step_type = "subflow", flow = "sure", next_steps = { "pay" } },
    Step { step_id = "pay", step_type = "action", next_steps = { "last" }, run = function(ctx)
      return ctx:http { method = "POST", url = "${url}/pay", json = {} }
    end },
    Step { step_id = "last", step_type = "user_input", prompt = "Fine?",
      input_schema = { type = "text" }, next_steps = { "end" } },
  }),
  flow("sure", {
    Step { step_id = "ask", step_type = "user_input", prompt = "Sure?",
      input_schema = { type = "text" }, next_steps = { "end" } },
  }),
  flow("broken", {
    Step { step_id = "ask", step_type = "user_input", prompt = "What?",
      input_schema = { type = "text" }, next_steps = { "boom" } },
    Step { step_id = "boom", step_type = "action", next_steps = { "end" },
      run = function() error("odd") end },
  }),
} }
`;

let place, outside, server;
before(async () => {
  outside = await new Outside().start();
  place = new Place({ shipped: false });
  place.script('desk', SYSTEM(outside.url));
  server = await new Server(place).start();
});
after(async () => {
  await server?.kill();
  await outside?.stop();
  place?.remove();
});

const begin = async (flow) => (await server.begin('desk', flow)).json.conversation_id;
const say = async (id, input, headers) => {
  const r = await server.post(`/v1/conversations/${id}/messages`, { input }, headers);
  assert.equal(r.status, 200, r.text);
  return r.json;
};
const read = async (id) => (await server.get(`/v1/conversations/${id}`)).json;

test('options and empty messages are answers, and what is not is said at the prompt', async () => {
  const id = await begin('note');
  let turn = await say(id, 'go back');
  assert.equal(turn.current_step, 'choose');
  assert.equal(turn.prompt.hint, 'There is no answer before this to go back to.');
  turn = await say(id, 'Stop!');
  assert.equal(turn.current_step, 'note');
  assert.match((await say(id, '?')).prompt.hint, /You can also say: back, cancel, restart, skip/);
  turn = await say(id, '');
  assert.equal(turn.current_step, 'form');
  turn = await say(id, 'go back');
  assert.equal(turn.current_step, 'note');
  const { state } = await read(id);
  assert.deepEqual(state, { choice: 'Stop!' });
  assert.equal((await say(id, ' stop ')).status, 'cancelled');
});

test('a form in a chat: what is filled is kept, and changed in other words', () => {
  const lines = ['Go on', 'blue', '2', 'next', 'next', 'change how many to three',
    'change Number to 3', 'Ada', 'change note to Red.', 'change what to say to x'];
  const r = place.run(['chat', 'desk/note'], { input: `${lines.join('\n')}\n` });
  assert.equal(r.code, 0, r.err);
  assert.match(r.out, /Who\?: This field is required\./);
  assert.match(r.out, /How many\?: Please answer with a whole number/);
  assert.match(r.out, /3 for Ada: blue\.[^]*3 for Ada: Red\.\./);
});

test('what has called outside keeps its answer, and the steps of flows say whose they are', async () => {
  const id = await begin('send');
  await say(id, 'Rome');
  let turn = await say(id, 'change place to Oslo');
  assert.equal(turn.prompt.hint,
    "'place' stays as it was: answers cannot be corrected inside the flow 'sure': end it first.");
  await say(id, 'yes');
  turn = await say(id, 'go back');
  assert.match(turn.prompt.hint, /^One cannot go back: .*cannot be taken back: pay\.$/);
  const refused = await server.post(`/v1/conversations/${id}/rollback`, { steps: 1 });
  assert.equal(refused.status, 409, refused.text);
  assert.equal(refused.json.code, 'rollback.irreversible');
  turn = await say(id, 'change place to Oslo');
  assert.match(turn.prompt.hint, /^'place' stays as it was: .*'inner' \(subflow\)/);
  assert.equal((await read(id)).state.place, 'Rome');
  const steps = place.run(['conversations', 'steps', id]);
  assert.match(steps.out, / sure\/ask +user_input/, steps.out + steps.err);
});

test('a step that has failed and waits understands them, too', async () => {
  const id = await begin('broken');
  assert.equal((await say(id, 'x')).status, 'waiting_input');
  assert.match((await say(id, '?')).prompt.hint, /any message runs it again/);
  assert.equal((await say(id, 'go back')).current_step, 'ask');
  assert.equal((await say(id, 'y')).current_step, 'boom');
  assert.equal((await say(id, 'Stop.')).status, 'cancelled');
});

test('a correction that was said goes on after a crash, and is answered once', async () => {
  const system = SYSTEM(outside.url).replace('next_steps = { "inner" }', 'next_steps = { "last" }');
  place.script('again', system.replace('name = "desk"', 'name = "again"'));
  await server.stop();
  server = await new Server(place).start();
  const id = (await server.begin('again', 'send')).json.conversation_id;
  await say(id, 'Rome');
  const sent = () => outside.requests.filter((r) => r.body.includes('"Lima"')).length;
  outside.delay = () => 2000;
  const body = { input: 'change where to? to Lima' }, key = { 'idempotency-key': 'c1' };
  const path = `/v1/conversations/${id}/messages`;
  const lost = server.post(path, body, key).catch(() => null);
  while (sent() === 0) await wait(5);
  await server.kill();
  assert.equal(await lost, null);
  outside.delay = () => 0;
  server = await new Server(place).start();
  const turn = await server.post(path, body, key);
  assert.equal(turn.status, 200, turn.text);
  assert.equal(turn.json.current_step, 'last');
  assert.equal((await server.post(path, body, key)).text, turn.text);
  assert.equal((await read(id)).state.place, 'Lima');
  const { items } = (await server.get(`/v1/conversations/${id}/messages`)).json;
  assert.equal(items.filter((m) => m.text === body.input).length, 1);
  const calls = new Set(outside.requests.filter((r) => r.body.includes('"Lima"'))
    .map((r) => r.key));
  assert.equal(calls.size, 1);
});
