// Branches that call a real server: at once, cancelled when they are not needed any more, and taken
// up where each was when the process is killed at every one of their calls in turn.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';
import { Place, Server, wait } from './host.mjs';

const script = (url) => `
local tm = require "tidemill"
local function call(id, following)
  return tm.ConversationStep { step_id = id, step_type = "action", save_as = id,
    run = function(ctx)
      local answer, err = ctx:http { url = "${url}/" .. id }
      if not answer then return nil, err end
      return { answer.body, ctx:random(1000000) }
    end, next_steps = following and { following } }
end
local function fork(more)
  more.step_id, more.step_type, more.save_as = "fork", "parallel", "got"
  more.next_steps = { "ask" }
  return tm.ConversationStep(more)
end
local ask = tm.ConversationStep { step_id = "ask", step_type = "user_input", prompt = "?",
  input_schema = { type = "text" }, next_steps = { "end" } }
local function flow(id, step)
  return tm.ConversationFlow { flow_id = id, start_step = "fork", steps = { step, ask } }
end
return tm.system { agents = {}, flows = {
    flow("all", fork { branches = {
      a = { call("a1", "a2"), call("a2", "a3"), call "a3" }, b = { call("b1", "b2"), call "b2" },
      c = { call "c1" } } }),
    flow("race", fork { join = "any", branches = { slow = { call "slow" }, fast = { call "fast" } },
      merge = function(_, results)
        return { results.fast.status, results.slow.status }
      end }),
    flow("spins", fork { on_error = "ask", branches = { a = { call "a1" }, spin = {
      tm.ConversationStep { step_id = "spin", step_type = "action",
        run = function(ctx)
          ctx:http { url = "${url}/spin" }
          while true do end
        end } } } }),
  } }`;

// Answers a request as `world.answer` says; remembers them all, and who hung up.
const world = { requests: [], hung_up: [], answer: null };
let outside, place, server;

before(async () => {
  outside = createServer((req, res) => {
    const name = req.url.slice(1);
    world.requests.push({ name, key: req.headers['idempotency-key'] });
    res.on('close', () => { if (!res.writableFinished) world.hung_up.push(name); });
    world.answer(name, () => res.end(name));
  });
  await new Promise((done) => outside.listen(0, '127.0.0.1', done));
  place = new Place({ shipped: false, config: {
    orchestrator: { performance_config: { parallel_execution: true } } } });
  place.script('par', script(`http://127.0.0.1:${outside.address().port}`));
  server = await new Server(place).start();
});
after(async () => {
  await server?.kill();
  outside?.closeAllConnections();
  outside?.close();
  place?.remove();
});

const fresh = (answer) => Object.assign(world, { requests: [], hung_up: [], answer });

const steps_of = async (id) => (await server.get(`/v1/conversations/${id}/steps?limit=200`))
  .json.items.reverse().map((s) => `${s.seq} ${s.branch ?? '-'}:${s.step_id} ${s.status}`);

const ALL_STEPS = ['1 -:fork completed', '2 a:a1 completed', '3 a:a2 completed',
  '4 a:a3 completed', '5 b:b1 completed', '6 b:b2 completed', '7 c:c1 completed'];

test('branches call at once', async () => {
  const waiting = [];
  fresh((name, answer) => { // the first answers come when all three have asked
    if (!name.endsWith('1')) return answer();
    if (waiting.push(answer) === 3) for (const one of waiting) one();
  });
  const r = await server.begin('par', 'all');
  assert.equal(r.status, 201, r.text);
  assert.equal(r.json.status, 'waiting_input', r.text);
  const { state } = (await server.get(`/v1/conversations/${r.json.conversation_id}`)).json;
  assert.deepEqual([state.got.a[0], state.got.b[0], state.got.c[0]], ['a3', 'b2', 'c1']);
  assert.deepEqual(await steps_of(r.json.conversation_id), ALL_STEPS);
  assert.equal(new Set(world.requests.map((one) => one.key)).size, 6);
});

test('the loser of a race is cancelled, its call too', async () => {
  let slow_asked;
  const asked = new Promise((done) => { slow_asked = done; });
  fresh((name, answer) => {
    if (name === 'slow') slow_asked();
    else asked.then(answer);
  });
  const r = await server.begin('par', 'race');
  assert.equal(r.json.status, 'waiting_input', r.text);
  const id = r.json.conversation_id;
  assert.deepEqual((await server.get(`/v1/conversations/${id}`)).json.state.got,
    ['completed', 'cancelled']);
  assert.deepEqual(await steps_of(id),
    ['1 -:fork completed', '2 fast:fast completed', '3 slow:slow cancelled']);
  for (let i = 0; i < 500 && world.hung_up.length === 0; i++) await wait(20);
  assert.deepEqual(world.hung_up, ['slow']);
});

test('a branch that reaches a limit fails its step, which has a way out', async () => {
  fresh((name, answer) => { if (name === 'spin') answer(); });
  const r = await server.begin('par', 'spins');
  assert.equal(r.json.status, 'waiting_input', r.text);
  assert.deepEqual(await steps_of(r.json.conversation_id),
    ['1 -:fork failed', '2 a:a1 cancelled', '3 spin:spin cancelled']);
  const { items } = (await server.get(
    `/v1/conversations/${r.json.conversation_id}/steps?limit=1`)).json;
  assert.equal(items.length, 1);
  const first = (await server.get(`/v1/conversations/${r.json.conversation_id}/steps?limit=9`))
    .json.items.at(-1);
  assert.equal(first.error.code, 'script.cpu', JSON.stringify(first.error));
});

test('killed at every call in turn, each branch goes on where it was', async () => {
  for (let at = 1; at <= 6; at++) {
    let killed;
    const death = new Promise((done) => { killed = done; });
    fresh((name, answer) => {
      if (world.requests.length !== at || world.dead) return answer();
      world.dead = true;
      killed(server.kill());
    });
    world.dead = false;
    const begun = server.begin('par', 'all', {}, { 'idempotency-key': `start-${at}` })
      .catch(() => null);
    await death;
    await begun;
    server = await new Server(place).start();
    const r = await server.begin('par', 'all', {}, { 'idempotency-key': `start-${at}` });
    assert.equal(r.json?.status, 'waiting_input', r.text);
    const { state } = (await server.get(`/v1/conversations/${r.json.conversation_id}`)).json;
    assert.deepEqual([state.got.a[0], state.got.b[0], state.got.c[0]], ['a3', 'b2', 'c1']);
    assert.deepEqual(await steps_of(r.json.conversation_id), ALL_STEPS, `killed at ${at}`);
    const times = new Map();
    for (const { key } of world.requests) times.set(key, (times.get(key) ?? 0) + 1);
    assert.equal(times.size, 6, 'a repeated call has its key');
    // Only what was under way can come again: of each branch one call.
    const again = [...times.values()].filter((n) => n > 1).length;
    assert.ok(again >= 1 && again <= 3, `${again} calls came again, killed at ${at}`);
    assert.ok([...times.values()].every((n) => n <= 2));
  }
});
