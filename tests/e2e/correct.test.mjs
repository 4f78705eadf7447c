// The command correct with a real process: by API and in a chat, killed in the midst of running
// again, with going back behind it and other corrections.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { after, before, test } from 'node:test';
import { noted, Outside, Place, program, Server } from './host.mjs';

const SYSTEM = (url) => `
local tm = require "tidemill"
local Step = tm.ConversationStep
local desk = tm.AssistantAgent { user_id = "desk", system_message = "Polite." }

local function send(ctx, name, value)
  return ctx:http { method = "POST", url = "${url}/" .. name, json = { value = value } }.json.n
end

local function act(name, reads, next_step, more)
  more.step_id, more.step_type, more.next_steps = name, "action", { next_step }
  more.run = function(ctx) return send(ctx, name, ctx.state[reads]) end
  more.save_as = name
  return Step(more)
end

local function ask(name, next_step)
  return Step { step_id = "ask_" .. name, step_type = "user_input", prompt = name .. "?",
    save_as = name, input_schema = { type = "text", required = true, min_length = 2 },
    next_steps = { next_step } }
end

return tm.system { name = "shop", agents = { desk = desk }, flows = { tm.ConversationFlow {
  flow_id = "order", start_step = "ask_name",
  settings = { enable_rollback = true, max_rollback_steps = 9, checkpoint_interval = 0 },
  steps = {
    ask("name", "ask_item"), ask("item", "reserve"),
    act("reserve", "item", "check", { undo = function(ctx, id) send(ctx, "release", id) end }),
    act("check", "name", "ask_note", {}),
    ask("note", "tell"),
    Step { step_id = "tell", step_type = "agent_response", agent = desk, prompt = "Tell.",
      response = "{item} for {name}.", next_steps = { "ask_last" } },
    ask("last", "end"),
  } } } }
`;

let place, outside, server;
before(async () => {
  outside = await new Outside().start();
  place = new Place({ shipped: false });
  place.script('shop', SYSTEM(outside.url));
  server = await new Server(place).start();
});
after(async () => {
  await server?.kill();
  await outside?.stop();
  place?.remove();
});

const read = async (id) => (await server.get(`/v1/conversations/${id}`)).json;
const command = (id, body, headers) =>
  server.post(`/v1/conversations/${id}/messages`, body, headers);
const correct = (id, name, input, headers) =>
  command(id, { command: 'correct', name, input }, headers);
const asked = (from) => outside.requests.slice(from).map((r) => r.url.slice(1));

async function ordered() {
  const id = (await server.begin('shop', 'order')).json.conversation_id;
  for (const said of ['Ada', 'boots', 'quick']) assert.equal((await server.say(id, said)).status, 200);
  return { id, from: outside.requests.length };
}

test('only what depended on the answer runs again, and a repeat gets the first answer', async () => {
  const { id, from } = await ordered();
  const before = await read(id);
  const key = { 'idempotency-key': 'c1' };
  const r = await correct(id, 'item', 'shoes', key);
  assert.equal(r.status, 200, r.text);
  assert.deepEqual(asked(from), ['release', 'reserve']);
  assert.equal(r.json.prompt.text, 'last?');
  assert.deepEqual(r.json.replies.map((m) => m.text), ['shoes for Ada.']);
  const now = await read(id);
  assert.equal(now.state.item, 'shoes');
  assert.equal(now.state.note, 'quick');
  assert.equal(now.state.check, before.state.check);
  assert.notEqual(now.state.reserve, before.state.reserve);
  assert.equal((await correct(id, 'item', 'shoes', key)).text, r.text);
  assert.deepEqual(asked(from), ['release', 'reserve']);
  const steps = (await server.get(`/v1/conversations/${id}/steps`)).json.items;
  assert.equal(steps.filter((s) => s.step_id === 'check').length, 1);
});

test('what cannot be taken back is named, and what nobody answered is refused', async () => {
  const { id, from } = await ordered();
  const { revision } = await read(id);
  let r = await correct(id, 'name', 'Bob');
  assert.equal(r.status, 409, r.text);
  assert.equal(r.json.code, 'rollback.irreversible');
  assert.match(r.json.detail, /cannot be taken back: check;/);
  for (const name of ['last', 'colour']) {
    r = await correct(id, name, 'red');
    assert.equal(r.status, 409, r.text);
    assert.equal(r.json.code, 'command.refused');
  }
  assert.equal((await read(id)).revision, revision);
  r = await correct(id, 'item', 'x');
  assert.equal(r.status, 200);
  assert.match(r.json.prompt.hint, /'item' stays as it was.*at least 2 characters/);
  assert.deepEqual(asked(from), []);
});

test('one can be corrected after another, and going back does not go over what was undone', async () => {
  const { id, from } = await ordered();
  await correct(id, 'note', 'slow');
  assert.deepEqual(asked(from), []);
  await correct(id, 'item', 'shoes');
  await correct(id, 'note', 'again');
  const r = await correct(id, 'ask_item', 'socks');
  assert.equal(r.status, 200, r.text);
  assert.deepEqual(asked(from), ['release', 'reserve', 'release', 'reserve']);
  const now = await read(id);
  assert.deepEqual([now.state.name, now.state.item, now.state.note], ['Ada', 'socks', 'again']);
  const back = await command(id, { command: 'back' });
  assert.equal(back.status, 200, back.text); // what was released before would count as reserved
  assert.match(back.json.prompt.hint, /cannot be taken back: reserve\.$/);
  const rollback = await server.post(`/v1/conversations/${id}/rollback`, { steps: 1 });
  assert.equal(rollback.status, 409, rollback.text);
  assert.equal(rollback.json.code, 'rollback.irreversible');
});

test('going back after a correction without effects takes it back', async () => {
  const { id } = await ordered();
  const then = await read(id);
  await correct(id, 'note', 'slow');
  const r = await command(id, { command: 'back' });
  assert.equal(r.status, 200, r.text);
  const now = await read(id);
  assert.deepEqual(now.state, then.state);
  assert.equal(now.prompt.text, then.prompt.text);
  assert.equal((await correct(id, 'note', 'fast')).status, 200);
  assert.equal((await read(id)).state.note, 'fast');
});

test('a wrong answer before it, and a refused correction behind it, change nothing in that', async () => {
  const { id } = await ordered();
  assert.match((await server.say(id, 'x')).json.prompt.hint, /at least 2/);
  await correct(id, 'note', 'slow');
  assert.match((await correct(id, 'note', 'x')).json.prompt.hint, /stays as it was/);
  const r = await command(id, { command: 'back' });
  assert.equal(r.status, 200, r.text);
  const now = await read(id);
  assert.deepEqual([now.state.note, now.prompt.text], ['quick', 'last?']);
});

test('a kill in the midst of it repeats nothing that was recorded, and leaves nothing undone', async () => {
  for (const name of ['release', 'reserve']) {
    const { id, from } = await ordered();
    let reached;
    const here = new Promise((done) => { reached = done; });
    outside.delay = (url) => {
      if (url !== `/${name}`) return 0;
      reached();
      return 300;
    };
    const lost = correct(id, 'item', 'shoes', { 'idempotency-key': `k-${name}` })
      .catch(() => 'lost');
    await here;
    await server.kill();
    outside.delay = () => 0;
    await lost;
    server = await new Server(place).start();
    const r = await correct(id, 'item', 'shoes', { 'idempotency-key': `k-${name}` });
    assert.equal(r.status, 200, r.text);
    const now = await read(id);
    assert.equal(now.status, 'waiting_input');
    assert.equal(now.prompt.text, 'last?');
    assert.equal(now.state.item, 'shoes');
    assert.equal(now.state.note, 'quick');
    const made = outside.requests.slice(from);
    assert.equal(new Set(made.map((one) => one.key)).size, 2); // each once, or with the same key
    assert.deepEqual([...new Set(asked(from))], ['release', 'reserve']);
    assert.equal(asked(from).filter((one) => one !== name).length, 1);
    assert.equal((await server.say(id, 'yes')).json.status, 'completed');
  }
});

// Not waited for by blocking: the outside is in this process.
const chat = (input) => new Promise((done) => {
  const child = spawn(program, ['chat', 'shop/order', '--config', place.config]);
  const said = { out: '', err: '' };
  child.stdout.on('data', (d) => { said.out += d; });
  child.stderr.on('data', (d) => { said.err += d; });
  child.on('close', (code) => { noted(said.err); done({ code, ...said }); });
  child.stdin.end(input);
});

test('a line of a chat corrects as well', async () => {
  const r = await chat('Ada\nboots\nquick\n/correct item red shoes\n/correct colour red\nyes\n');
  assert.equal(r.code, 0, r.err);
  assert.match(r.out, /red shoes for Ada\./);
  assert.match(r.err + r.out, /no answer 'colour'.*\[command\.refused\]/);
});
