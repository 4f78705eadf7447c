// The conversations of every_step*.test.mjs: one through every type of step, each with calls to the
// outside and events, and back again by undo functions that call as well; one that fails, and whose
// steps are undone. The outside counts; a host may die at any point of them, and somebody repeats
// what got no answer.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { system } from './every_step_system.mjs';
import { wait } from './host.mjs';

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
    this.webhooks = { url: `${this.url}/events`, secret: 's', timeout: '300ms' };
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
  // A repeat gets the answer that the call got before. The branch that loses is never answered, and the
  // other one not before that one has called.
  #answer(name, key, body, res) {
    const first = this.calls.find((c) => c.key === key);
    const refused = first?.refused ?? this.#refuses(name);
    const n = this.calls.push({ name, key, body, refused }) - 1;
    if (this.reach('call', n, 'before')) return;
    const reply = () => {
      res.writeHead(refused ? 503 : 200, { 'content-type': 'application/json' });
      res.end(JSON.stringify({ name }), () => this.reach('call', n, 'after'));
    };
    if (name === 'won' && this.#keys('won') > this.#keys('late')) this.held = reply;
    else if (name !== 'late') reply();
    if (name === 'late' && this.held) this.held();
    if (name === 'late') this.held = null;
  }
  #refuses(name) {
    if (name.endsWith('flaky')) return !this.calls.some((c) => c.name === name);
    return ['doomed', 'undo_stuck'].includes(name);
  }
  #keys(name) { return new Set(this.calls.filter((c) => c.name === name).map((c) => c.key)).size; }
}

const say = (input) => ({ path: 'messages', body: { input } });
const approve = { path: 'approval', body: { approved: true },
  headers: { 'x-tidemill-role': 'manager' } };
const paid = (sum) => ({ path: 'event', body: { name: 'paid', data: { sum } } });
const back = (body) => ({ path: 'rollback', body });

// What comes in, and where the conversation stands then. `refused`: the code of the answer; `load`: a
// version of the system is loaded before; of a fork it is the fork that goes on.
const INPUTS = {
  all: [
    { ...say('boots'), at: 'street' },
    { ...say('Low Road'), at: 'sign' },
    { ...approve, at: 'paid' },
    { ...paid(7), at: 'more' },
    { ...back({ steps: 3 }), at: 'street' },
    { ...say('High Road'), at: 'sign' },
    { ...approve, at: 'paid' },
    { ...paid(8), at: 'more' },
    { path: 'messages', body: { command: 'back' }, at: 'more' }, // not over an event
    { ...back({ steps: 1 }), at: 'paid' },
    { ...paid(9), at: 'more' },
    { ...say('no'), at: null },
  ],
  saga: [
    { ...say('boots'), at: 'street' },
    { ...say('Low Road'), at: null },
  ],
  forced: [
    { ...say('boots'), at: 'more' },
    { ...back({ steps: 1 }), at: 'more', refused: 'rollback.irreversible' },
    { ...back({ steps: 1, force: true }), at: 'ask' },
    { ...say('shoes'), at: 'more' },
    { path: 'fork', body: {}, at: 'more' },
    { path: 'migrate', body: {}, load: 2, at: 'more' },
    { ...say('no'), at: null },
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

async function until_answered(state, request) {
  for (;;) {
    const r = await ask(state, request);
    if (r) return r;
  }
}

// When nothing moves by itself any more.
async function at_rest(state, id) {
  for (;;) {
    const r = await until_answered(state, (server) => server.get(`/v1/conversations/${id}`));
    assert.equal(r.status, 200, r.text);
    if (!['active', 'sleeping'].includes(r.json.status)) return r.json;
    await wait(5);
  }
}

// A host that has died loads what is there when it starts.
async function load(state, version) {
  state.place.script('every', system(state.world.url, version));
  for (const server of await state.servers()) {
    const r = await server.post('/v1/admin/reload', {}).catch(() => null);
    assert.ok(!r || r.status === 200, r?.text);
  }
}

// One input. Who gets no answer repeats it when all is at rest, and gets the answer that is due.
async function act(state, id, n, { path, body, headers, at, refused }) {
  const send = (server) => server.post(`/v1/conversations/${id}/${path}`, body,
    { ...headers, 'idempotency-key': `input-${state.runs}-${n}` });
  let answer = await ask(state, send), now = await at_rest(state, id);
  while (!answer) {
    answer = await ask(state, send);
    now = await at_rest(state, id);
  }
  assert.ok(refused ? answer.json.code === refused : answer.status < 300, answer.text);
  assert.equal(now.current_step, at, JSON.stringify(now));
  return { answer: plain(answer.json), now: plain(now), id: answer.json.conversation_id };
}

/* ---- what has come of it ---- */

const OF_THIS_RUN = ['start', 'end', 'created', 'updated', 'revision', 'checkpoint_id', 'expires_at',
  'at', 'usage'];

// Without what is another one in each run: times, and the numbers of rows, among which are those of
// claims and deadlines.
function plain(value) {
  if (Array.isArray(value)) return value.map(plain);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).filter(([name]) => !OF_THIS_RUN.includes(name))
    .map(([name, one]) => [name, plain(one)]));
}

// Ids and versions by their order, files by their place in the folder.
function named(value, state, ids) {
  const text = JSON.stringify(value).replaceAll(state.place.dir, '');
  const versions = [...text.matchAll(/"flow_version":"(\w+)"/g)].map((found) => found[1]);
  const names = [...ids, ...new Set(versions)];
  return JSON.parse(names.reduce((t, name, i) => t.replaceAll(name, `name ${i}`), text));
}

async function record(state, session) {
  const read = async (path) => (await until_answered(state, (s) => s.get(`/v1/${path}`))).json;
  const ids = (await read(`conversations?session_id=${session}`)).items
    .map((one) => one.conversation_id).sort();
  const all = [];
  for (const id of ids) {
    const parts = [await read(`conversations/${id}`)];
    for (const part of ['messages', 'steps', 'checkpoints'])
      parts.push((await read(`conversations/${id}/${part}?limit=200`)).items.reverse());
    all.push(plain(parts));
  }
  return { ids, all };
}

async function all_told(state, ids) {
  for (;;) {
    const r = await until_answered(state, (server) => server.get('/v1/outbox'));
    if (!r.json.items.some((one) => ids.includes(one.conversation_id))) return;
    await wait(10);
  }
}

// From start to end. `state`: { world, place, server, servers, runs, death }.
export async function play(state, flow) {
  state.world.clear();
  state.runs = (state.runs ?? 0) + 1;
  const session = `s${state.runs}`, stages = [];
  if (INPUTS[flow].some((input) => input.load)) await load(state, 1);
  const begun = await until_answered(state, (server) => server.begin('every', flow,
    { session_id: session }, { 'idempotency-key': `begin-${state.runs}` }));
  assert.equal(begun.status, 201, begun.text);
  let id = begun.json.conversation_id;
  for (const [n, input] of INPUTS[flow].entries()) {
    if (input.load) await load(state, input.load);
    const stage = await act(state, id, n, input);
    id = input.path === 'fork' ? stage.id : id;
    stages.push([stage.answer, stage.now]);
  }
  const { ids, all } = await record(state, session);
  await all_told(state, ids);
  return { ids, record: named({ begun: plain(begun.json), stages, all }, state, [session, ...ids]),
    calls: state.world.calls, told: state.world.told };
}

/* ---- what the outside has seen ---- */

// Branches run beside each other: each has an order of its own.
const branch_of = (call) => call.name.match(/^(left|right|late|won)/)?.[1] ?? 'main';

// The calls of each branch, in the order in which they were made. One that was under way when its host
// died comes again at once and under its key; behind another one it was recorded, and may not.
function made(calls) {
  const branches = { main: [], left: [], right: [], late: [], won: [] };
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

// What was told of a conversation, each once: in order, as the ids say, and a repeat of the newest alone.
function heard(told, id) {
  const events = [];
  const place = (one) => one.id.split(':').slice(1, 3).map(Number);
  for (const one of told.filter((event) => event.conversation_id === id)) {
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

function all_heard({ told, ids }) {
  for (const one of told) assert.ok(ids.includes(one.conversation_id));
  return ids.map((id) => heard(told, id));
}

export function compare(one, undisturbed, what) {
  assert.deepEqual(one.record, undisturbed.record, what);
  assert.deepEqual(made(one.calls), made(undisturbed.calls), what);
  assert.deepEqual(all_heard(one), all_heard(undisturbed), what);
}
