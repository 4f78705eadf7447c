// ctx:once, ctx:uuid and ctx:random in a step that is tried again: the process is killed at every
// call to the outside in turn, before and after its answer. The undisturbed run is what counts.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';
import { Place, Server, wait } from './host.mjs';

const system = (url) => `
local tm = require "tidemill"

local function call(ctx, name, json)
  local answer = assert(ctx:http { method = "POST", url = "${url}/" .. name, json = json })
  if answer.status ~= 200 then error(name .. ": status " .. answer.status) end
  return answer.json
end

local function order(ctx)
  local paid = ctx:once("pay", function()
    local id = ctx:uuid()
    local bill = call(ctx, "bill", { id = id, by = ctx.conversation_id })
    return { id = id, lot = ctx:random(1000000), bill = bill.n,
      pay = call(ctx, "pay", { id = id, by = ctx.conversation_id }).n }
  end)
  local note = ctx:once("note", function() return { at = ctx.now, id = ctx:uuid() } end)
  local draw = { ctx:random(1000000), ctx:uuid(), ctx.now }
  call(ctx, "pack", { draw = draw, by = ctx.conversation_id })
  call(ctx, "ship", { draw = draw, paid = paid, note = note, by = ctx.conversation_id })
  return { paid = paid, note = note, draw = draw, again = { ctx:random(1000000), ctx:uuid(), ctx.now } }
end

return tm.system { name = "shop", agents = {}, flows = { tm.ConversationFlow {
  flow_id = "order", start_step = "ask", pattern = tm.ConversationPattern.STEP_BY_STEP_PROCESS,
  settings = { max_retries = 9, retry_delay = 0.01 },
  steps = {
    tm.ConversationStep { step_id = "ask", step_type = "user_input", prompt = "Order?",
      input_schema = { type = "text" }, next_steps = { "order" } },
    tm.ConversationStep { step_id = "order", step_type = "action", run = order, save_as = "order",
      next_steps = { "done" } },
    tm.ConversationStep { step_id = "done", step_type = "user_input", prompt = "Done.",
      input_schema = { type = "text" }, next_steps = { "end" } },
  },
} } }
`;

const KILLS = 12; // calls that an undisturbed run makes, and some that come of repeats
let outside, calls, refusals, kill;

const answer = (res, status, body) => new Promise((done) => {
  res.writeHead(status, { 'content-type': 'application/json' });
  res.end(JSON.stringify(body), done);
});

// Shipping is refused twice. `kill` says of the nth call when its host dies.
before(async () => {
  outside = createServer((req, res) => {
    let body = '';
    req.on('data', (d) => { body += d; });
    req.on('end', async () => {
      const name = req.url.slice(1), n = calls.length;
      const seen = calls.filter((c) => c.name === name && c.key === req.headers['idempotency-key']);
      calls.push({ name, key: req.headers['idempotency-key'], body });
      if (kill?.at === n && kill.when === 'before') return kill.now();
      const refused = name === 'ship' && (seen[0]?.refused ?? refusals-- > 0);
      calls[n].refused = refused;
      await answer(res, refused ? 503 : 200, { n: 1 + calls.findIndex((c) => c.name === name) });
      if (kill?.at === n) kill.now();
    });
  });
  await new Promise((done) => outside.listen(0, '127.0.0.1', done));
  outside.unref();
});
after(() => {
  outside.closeAllConnections();
  outside.close();
});

const distinct = (name, of) => new Set(calls.filter((c) => c.name === name).map(of)).size;

// One order from start to end; the host dies where `at` and `when` say.
async function order(place, state, at, when) {
  calls = [];
  refusals = 2;
  const begun = await state.server.begin('shop', 'order');
  assert.equal(begun.status, 201, begun.text);
  const id = begun.json.conversation_id;
  const killed = new Promise((done) => {
    kill = { at, when, now: () => { kill = null; done(state.server.kill()); } };
  });
  const said = state.server.say(id, 'one').catch(() => null);
  await said;
  const died = at >= 0 && calls.length > at; // also where the answer was quicker than the kill
  if (died) {
    await killed;
    state.server = await new Server(place).start();
  }
  for (;;) {
    const r = await state.server.get(`/v1/conversations/${id}`);
    assert.equal(r.status, 200, r.text);
    if (r.json.status !== 'active') return { died, id, conversation: r.json };
    await wait(5);
  }
}

function check({ died, id, conversation }) {
  const what = JSON.stringify(calls, null, 1);
  assert.equal(conversation.status, 'waiting_input', what);
  assert.equal(conversation.current_step, 'done', what);
  const { paid, note, draw, again } = conversation.state.order;
  assert.equal(distinct('bill', (c) => c.key + c.body), 1, what);
  assert.equal(distinct('pay', (c) => c.key + c.body), 1, what);
  assert.ok(calls.filter((c) => c.name === 'pay').length <= (died ? 2 : 1), what);
  assert.ok(calls.filter((c) => c.name === 'bill').length <= (died ? 2 : 1), what);
  assert.equal(distinct('pack', (c) => c.key), 3, 'another attempt is another call');
  assert.equal(distinct('ship', (c) => c.key), 3, what);
  for (const name of ['pack', 'ship']) // what is repeated asks the same
    assert.equal(distinct(name, (c) => c.body), distinct(name, (c) => c.key + c.body), what);
  const shipped = calls.filter((c) => c.name === 'ship').map((c) => JSON.parse(c.body));
  for (const s of shipped) assert.deepEqual([s.paid, s.note], [paid, note], what);
  assert.deepEqual(shipped.at(-1).draw, draw, what);
  assert.equal(JSON.parse(calls.find((c) => c.name === 'pay').body).id, paid.id);
  assert.equal(again[2], draw[2], 'time stands still in an attempt');
  assert.equal(new Set([paid.id, note.id, draw[1], again[1], id]).size, 5);
}

for (const backend of ['sqlite', 'file']) {
  test(`killed at every call: ${backend}`, { timeout: 120000 }, async (t) => {
    const place = new Place({ shipped: false });
    if (backend === 'file') place.use_files();
    place.script('shop', system(`http://127.0.0.1:${outside.address().port}`));
    const state = { server: await new Server(place).start() };
    t.after(async () => { await state.server.kill(); place.remove(); });
    check(await order(place, state, -1));
    const undisturbed = calls.map((c) => c.name);
    assert.deepEqual(undisturbed,
      ['bill', 'pay', 'pack', 'ship', 'pack', 'ship', 'pack', 'ship']);
    let deaths = 0;
    for (const when of ['before', 'after']) {
      for (let at = 0; at < KILLS; at++) {
        const run = await order(place, state, at, when);
        deaths += run.died ? 1 : 0;
        check(run);
      }
    }
    assert.equal(deaths, 2 * undisturbed.length);
  });
}
