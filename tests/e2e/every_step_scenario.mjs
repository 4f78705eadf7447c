// The conversations of every_step*.test.mjs: one through every type of step, each with calls to the
// outside and events, and back again by undo functions that call as well; one that fails, and whose
// steps are undone. The outside counts; a host may die at any point of them, and somebody repeats
// what got no answer.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { wait } from './host.mjs';

export const system = (url) => `
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
  local run = step.run or function(ctx) return call(ctx, name, { item = ctx.state.item }) end
  step.run = function(ctx)
    local result = run(ctx)
    ctx:emit("did." .. name, { item = ctx.state.item })
    return result
  end
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
      irreversible = false, concurrency = 2, -- its steps have undo functions
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
  tm.ConversationFlow { flow_id = "saga", start_step = "ask", compensate_on_failure = true,
    settings = { max_retries = 2, retry_delay = 0.01 }, steps = {
    Step { step_id = "ask", step_type = "user_input", prompt = "Item?", save_as = "item",
      input_schema = { type = "text", required = true }, next_steps = { "book" } },
    act("book", "load"),
    act("load", "street"),
    Step { step_id = "street", step_type = "user_input", prompt = "Street?", save_as = "street",
      input_schema = { type = "text", required = true }, next_steps = { "flaky" } },
    act("flaky", "doomed"),
    act("doomed", "end"),
  } },
} }
`;

// What is called, and told of events. `reach(kind, n, when)`, for the nth call or telling, is true where
// whoever is there dies: then it gets no answer.
export class World {
  constructor() {
    this.reach = () => false;
    this.clear();
  }
  clear() {
    this.calls = [];
    this.told = [];
  }
  async start() {
    this.server = createServer((req, res) => {
      let body = '';
      req.on('data', (d) => { body += d; });
      req.on('end', () => {
        const name = req.url.slice(1);
        if (name === 'events') this.#hear(JSON.parse(body), res);
        else this.#answer(name, req.headers['idempotency-key'], body, res);
      });
    });
    await new Promise((done) => this.server.listen(0, '127.0.0.1', done));
    this.server.unref();
    this.url = `http://127.0.0.1:${this.server.address().port}`;
    this.webhooks = { url: `${this.url}/events`, secret: 's', timeout: '1s' };
    return this;
  }
  stop() {
    this.server.closeAllConnections();
    this.server.close();
  }
  #hear(event, res) {
    const n = this.told.push(event) - 1;
    if (this.reach('told', n, 'before')) return;
    res.writeHead(204).end(() => this.reach('told', n, 'after'));
  }
  // The first `flaky` of a run is refused, and every `doomed`; a repeat gets the answer that it got
  // before.
  #answer(name, key, body, res) {
    const first = this.calls.find((c) => c.key === key);
    const refused = first?.refused
      ?? (name === 'doomed' || (name === 'flaky' && !this.calls.some((c) => c.name === name)));
    const n = this.calls.push({ name, key, body, refused }) - 1;
    if (this.reach('call', n, 'before')) return;
    res.writeHead(refused ? 503 : 200, { 'content-type': 'application/json' });
    res.end(JSON.stringify({ name }), () => this.reach('call', n, 'after'));
  }
}

const say = (input) => ({ path: 'messages', body: { input } });
const approve = { path: 'approval', body: { approved: true },
  headers: { 'x-tidemill-role': 'manager' } };
const paid = (sum) => ({ path: 'event', body: { name: 'paid', data: { sum } } });

// What comes in, and where the conversation stands then.
const INPUTS = {
  all: [
    { ...say('boots'), at: 'street' },
    { ...say('Low Road'), at: 'sign' },
    { ...approve, at: 'paid' },
    { ...paid(7), at: 'more' },
    { path: 'rollback', body: { steps: 3 }, at: 'street' },
    { ...say('High Road'), at: 'sign' },
    { ...approve, at: 'paid' },
    { ...paid(8), at: 'more' },
    { path: 'messages', body: { command: 'back' }, at: 'paid' },
    { ...paid(9), at: 'more' },
    { ...say('no'), at: null },
  ],
  saga: [
    { ...say('boots'), at: 'street' },
    { ...say('Low Road'), at: null },
  ],
};
export const FLOWS = Object.keys(INPUTS);

// Of `state`: `server` is asked; where it has died, `death` gives the one to ask from then on.
// Null: nobody knows what has come of it.
async function ask(state, request) {
  try {
    return await request(state.server);
  } catch (e) {
    if (!state.death) throw e;
    const { death } = state;
    state.death = null;
    state.server = await death;
    return null;
  }
}

// When nothing moves by itself any more.
async function at_rest(state, id) {
  for (;;) {
    const r = await ask(state, (server) => server.get(`/v1/conversations/${id}`));
    if (r) assert.equal(r.status, 200, r.text);
    if (r && !['active', 'sleeping'].includes(r.json.status)) return r.json;
    await wait(2);
  }
}

// One input. Who gets no answer looks what has come of it, and repeats it where it has been lost; where
// it has not been, a repeat changes nothing.
async function act(state, id, n, { path, body, headers, at }) {
  const send = (server) => server.post(`/v1/conversations/${id}/${path}`, body,
    { ...headers, 'idempotency-key': `input-${n}` });
  const answer = await ask(state, send);
  let now = await at_rest(state, id);
  const lost = !answer && now.current_step !== at;
  if (answer) assert.equal(answer.status, 200, answer.text);
  if (!answer && (lost || path !== 'rollback')) {
    const again = await send(state.server);
    assert.equal(again.status, 200, again.text);
    now = await at_rest(state, id);
  }
  assert.equal(now.current_step, at, JSON.stringify(now));
}

async function begin(state, flow) {
  const request = (server) => server.begin('every', flow, {}, { 'idempotency-key': `begin-${state.runs}` });
  const begun = await ask(state, request) ?? await request(state.server);
  assert.equal(begun.status, 201, begun.text);
  return begun.json.conversation_id;
}

async function record(state, id) {
  const read = async (part) => (await ask(state, (s) => s.get(`/v1/conversations/${id}${part}`)))?.json
    ?? read(part);
  const { status, current_step, state: kept, error } = await read('');
  const messages = (await read('/messages?limit=200')).items.map((m) => `${m.seq} ${m.role}: ${m.text}`);
  const steps = (await read('/steps?limit=200')).items
    .map((s) => `${s.seq} ${s.step_id} ${s.status} ${s.attempt} ${s.undoes ?? ''}`);
  const failed = error && { code: error.code, step: error.step_id, compensation: error.compensation };
  return { status, current_step, kept, failed, messages, steps };
}

async function all_told(state, id) {
  for (;;) {
    const r = await ask(state, (server) => server.get('/v1/outbox'));
    if (r && !r.json.items.some((one) => one.conversation_id === id)) return;
    await wait(5);
  }
}

// From start to end. `state`: { world, server, runs, death }.
export async function play(state, flow) {
  state.world.clear();
  state.runs = (state.runs ?? 0) + 1;
  const id = await begin(state, flow);
  for (const [n, input] of INPUTS[flow].entries()) await act(state, id, n, input);
  await all_told(state, id);
  return { id, record: await record(state, id), calls: state.world.calls, told: state.world.told };
}

/* ---- what has come of it ---- */

// Branches run beside each other: each has an order of its own.
const branch_of = (call) => call.name.match(/^(left|right)_/)?.[1] ?? 'main';

// The calls of each branch, in the order in which they were made. One that was under way when its host
// died comes again at once and under its key; behind another one it was recorded, and may not.
function made(calls) {
  const branches = { main: [], left: [], right: [] };
  for (const c of calls) {
    const branch = branches[branch_of(c)];
    if (branch.at(-1)?.key === c.key) continue;
    assert.ok(!branch.some((one) => one.key === c.key), `${c.name} was made again later`);
    branch.push(c);
  }
  for (const [name, list] of Object.entries(branches))
    branches[name] = list.map((c) => `${c.name} ${c.body} ${c.refused}`);
  return branches;
}

// What was told, each once: in order, as the ids say, and a repeat of the newest alone.
function heard(told, id) {
  const events = [];
  const place = (one) => one.id.split(':').slice(1, 3).map(Number);
  for (const one of told) {
    assert.equal(one.conversation_id, id);
    if (events.at(-1)?.id === one.id) {
      assert.deepEqual(one, events.at(-1));
      continue;
    }
    const [[row, n], [before, m]] = [place(one), events.length ? place(events.at(-1)) : [0, 0]];
    assert.ok(row > before || (row === before && n > m), `${one.id} behind ${events.at(-1)?.id}`);
    events.push(one);
  }
  const words = events.map((one) => `${one.event} ${JSON.stringify(one.data)}`);
  const of = (test) => words.filter((w) => test(/^did\.(left|right)_/.exec(w)?.[1]));
  return ['left', 'right', undefined].map((name) => of((branch) => branch === name));
}

export function compare(one, undisturbed, what) {
  assert.deepEqual(one.record, undisturbed.record, what);
  assert.deepEqual(made(one.calls), made(undisturbed.calls), what);
  assert.deepEqual(heard(one.told, one.id), heard(undisturbed.told, undisturbed.id), what);
}
