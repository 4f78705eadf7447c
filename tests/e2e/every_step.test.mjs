// A conversation through every type of step, each with calls to the outside, and back again by undo
// functions that call as well. The process is killed at every call in turn, before and after its
// answer; what comes of it, and what the outside has seen, must be the undisturbed run's.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';
import { Place, Server, wait } from './host.mjs';

const NIGHTLY = process.env.TIDEMILL_NIGHTLY === '1';

const system = (url) => `
local tm = require "tidemill"
local Step = tm.ConversationStep

local function call(ctx, name, more)
  local answer = assert(ctx:http { method = "POST", url = "${url}/" .. name, json = more or {} })
  if answer.status ~= 200 then error(name .. ": status " .. answer.status) end
  return answer.json
end

local function act(name, onward, more)
  local step = more or {}
  step.step_id, step.step_type, step.next_steps, step.save_as = name, "action", { onward }, name
  step.run = step.run or function(ctx) return call(ctx, name, { item = ctx.state.item }) end
  step.undo = function(ctx, output) call(ctx, "undo_" .. name, { output = output }) end
  return Step(step)
end

local function branch(name)
  return { act(name .. "_one", name .. "_two"), act(name .. "_two", "end") }
end

local clerk = { respond = function(ctx)
  return "Clerk " .. call(ctx, "clerk", { item = ctx.state.item }).name
end }

return tm.system { name = "every", agents = { clerk = clerk }, flows = {
  tm.ConversationFlow { flow_id = "all", start_step = "ask", variables = { count = 0 },
    settings = { enable_rollback = true, max_retries = 3, retry_delay = 0.01 }, steps = {
    Step { step_id = "ask", step_type = "user_input", prompt = "Item?", save_as = "item",
      input_schema = { type = "text", required = true }, next_steps = { "pay" } },
    act("pay", "speak", { run = function(ctx)
      local bill = ctx:once("bill", function() return call(ctx, "bill") end)
      return { bill = bill.name, paid = call(ctx, "pay", { draw = ctx:random(1000) >= 0 }).name }
    end }),
    Step { step_id = "speak", step_type = "agent_response", agent = "clerk",
      irreversible = false, next_steps = { "which" } },
    Step { step_id = "which", step_type = "decision", next_steps = { "inside", "end" },
      condition = function(ctx) return ctx.state.item end,
      conditional_logic = { none = "end", default = "inside" } },
    Step { step_id = "inside", step_type = "subflow", flow = "address", result = "street",
      save_as = "street", next_steps = { "sign" } },
    Step { step_id = "sign", step_type = "approval", role = "manager", prompt = "Send?",
      next_steps = { "both", "end" }, conditional_logic = { approved = "both", rejected = "end" } },
    Step { step_id = "both", step_type = "parallel", save_as = "both",
      irreversible = false, -- its steps have undo functions
      branches = { left = branch "left", right = branch "right" }, next_steps = { "paid" } },
    Step { step_id = "paid", step_type = "wait", event = "paid", save_as = "receipt",
      next_steps = { "flaky" } },
    act("flaky", "rest"),
    Step { step_id = "rest", step_type = "wait", seconds = 0.02, next_steps = { "tell" } },
    act("tell", "more"),
    Step { step_id = "more", step_type = "user_input", prompt = "More, {count}?", save_as = "more",
      input_schema = { type = "text", required = true }, next_steps = { "bye" } },
    act("bye", "end"),
  } },
  tm.ConversationFlow { flow_id = "address", start_step = "street", variables = { street = "" },
    settings = { enable_rollback = true, max_retries = 3, retry_delay = 0.01 }, steps = {
    Step { step_id = "street", step_type = "user_input", prompt = "Street?", save_as = "street",
      input_schema = { type = "text", required = true }, next_steps = { "look_up" } },
    act("look_up", "end"),
  } },
} }
`;

let outside, calls, kill;

// The first `flaky` of a run is refused; a repeat gets the answer that it got before. `kill` says of
// the nth call when its host dies.
before(async () => {
  outside = createServer((req, res) => {
    let body = '';
    req.on('data', (d) => { body += d; });
    req.on('end', () => {
      const name = req.url.slice(1), n = calls.length, key = req.headers['idempotency-key'];
      const first = calls.find((c) => c.key === key);
      const refused = first?.refused ?? (name === 'flaky' && !calls.some((c) => c.name === name));
      calls.push({ name, key, body, refused });
      if (kill?.at === n && kill.when === 'before') return kill.now();
      res.writeHead(refused ? 503 : 200, { 'content-type': 'application/json' });
      res.end(JSON.stringify({ name }), () => { if (kill?.at === n) kill.now(); });
    });
  });
  await new Promise((done) => outside.listen(0, '127.0.0.1', done));
  outside.unref();
});
after(() => {
  outside.closeAllConnections();
  outside.close();
});

const say = (input) => ({ path: 'messages', body: { input } });

// What comes in, and where the conversation stands then.
const INPUTS = [
  { ...say('boots'), at: 'street' },
  { ...say('Low Road'), at: 'sign' },
  { path: 'approval', body: { approved: true }, headers: { 'x-tidemill-role': 'manager' }, at: 'paid' },
  { path: 'event', body: { name: 'paid', data: { sum: 7 } }, at: 'more' },
  { path: 'rollback', body: { steps: 3 }, at: 'street' },
  { ...say('High Road'), at: 'sign' },
  { path: 'approval', body: { approved: true }, headers: { 'x-tidemill-role': 'manager' }, at: 'paid' },
  { path: 'event', body: { name: 'paid', data: { sum: 8 } }, at: 'more' },
  { path: 'messages', body: { command: 'back' }, at: 'paid' },
  { path: 'event', body: { name: 'paid', data: { sum: 9 } }, at: 'more' },
  { ...say('no'), at: null },
];

// Nothing: the host has died, and another one is there.
async function ask(state, request) {
  const answer = await request().catch(() => null);
  if (!answer) {
    await state.killed;
    state.server = await new Server(state.place).start();
  }
  return answer;
}

async function settled(state, id, at) {
  for (;;) {
    const r = await ask(state, () => state.server.get(`/v1/conversations/${id}`));
    if (!r) continue;
    assert.equal(r.status, 200, r.text);
    if (!['active', 'sleeping'].includes(r.json.status)) {
      assert.equal(r.json.current_step, at, r.text);
      return r.json;
    }
    await wait(2);
  }
}

// One input; where its host died in it, it is done without the client, and a repeat changes nothing.
async function act(state, id, n) {
  const { path, body, headers, at } = INPUTS[n];
  const send = () => state.server.post(`/v1/conversations/${id}/${path}`, body,
    { ...headers, 'idempotency-key': `input-${n}` });
  const answer = await ask(state, send);
  if (answer) assert.equal(answer.status, 200, answer.text);
  await settled(state, id, at);
  if (answer || path === 'rollback') return;
  const again = await send();
  assert.equal(again.status, 200, again.text);
}

async function record(state, id) {
  const read = async (part) => (await state.server.get(`/v1/conversations/${id}${part}`)).json;
  const { status, current_step, state: kept } = await read('');
  const messages = (await read('/messages?limit=200')).items.map((m) => `${m.seq} ${m.role}: ${m.text}`);
  const steps = (await read('/steps?limit=200')).items
    .map((s) => `${s.seq} ${s.step_id} ${s.status} ${s.attempt} ${s.undoes ?? ''}`);
  return { status, current_step, kept, messages, steps };
}

// From start to end; the host dies where `at` and `when` say.
async function run(state, at, when) {
  calls = [];
  kill = null;
  let died = false;
  const begun = await state.server.begin('every', 'all');
  assert.equal(begun.status, 201, begun.text);
  const id = begun.json.conversation_id;
  state.killed = new Promise((done) => {
    kill = { at, when, now: () => { kill = null; died = true; done(state.server.kill()); } };
  });
  for (let n = 0; n < INPUTS.length; n++) await act(state, id, n);
  return { died, id, record: await record(state, id), calls };
}

// In the order in which each was made first.
function made(list) {
  const seen = new Map();
  for (const c of list) if (!seen.has(c.key)) seen.set(c.key, `${c.name} ${c.body} ${c.refused}`);
  return [...seen.values()];
}

for (const backend of ['sqlite', 'file']) {
  test(`killed at every call: ${backend}`, { timeout: 600000 }, async (t) => {
    const place = new Place({ shipped: false });
    if (backend === 'file') place.use_files();
    place.script('every', system(`http://127.0.0.1:${outside.address().port}`));
    const state = { place, server: await new Server(place).start() };
    t.after(async () => { await state.server.kill(); place.remove(); });
    const undisturbed = await run(state, -1);
    assert.ok(undisturbed.calls.some((c) => c.name === 'undo_right_two'));
    assert.equal(made(undisturbed.calls).length, undisturbed.calls.length);
    for (let at = 0; at < undisturbed.calls.length; at++) {
      for (const when of NIGHTLY ? ['before', 'after'] : [at % 2 ? 'before' : 'after']) {
        const one = await run(state, at, when);
        const what = `killed ${when} call ${at}, ${undisturbed.calls[at].name}`;
        assert.ok(one.died, what);
        assert.deepEqual(one.record, undisturbed.record, what);
        assert.deepEqual(made(one.calls), made(undisturbed.calls), what);
        assert.ok(one.calls.length <= undisturbed.calls.length + 1, what);
      }
    }
  });
}
