// A conversation whose step has failed and is tried again much later: an operator does not wait
// for that, and its user hears when it will be. By the API and in the terminal, beside a server.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Outside, Place, Server } from './host.mjs';

const SYSTEM = (url, more = '') => `
local tm = require "tidemill"
local Step = tm.ConversationStep
local function call(name, retryable)
  return function(ctx)
    local answer = ctx:http { method = "POST", url = "${url}/" .. name, json = {} }
    if answer and answer.status == 200 then return { name = name } end
    return nil, { code = "test.refused", message = name, retryable = retryable }
  end
end
return tm.system { name = "shop", agents = {}, flows = { tm.ConversationFlow {
  flow_id = "order", start_step = "ask",
  settings = { enable_rollback = true, max_retries = 3, retry_delay = 240 }, steps = {
    Step { step_id = "ask", step_type = "user_input", prompt = "Item?", save_as = "item",
      input_schema = { type = "text" }, next_steps = { "pay" } },
    Step { step_id = "pay", step_type = "action", run = call("pay"), undo = call("refund"),
      next_steps = { "note" } },
    Step { step_id = "note", step_type = "action", run = function(ctx)
        ctx.state.noted = (ctx.state.noted or 0) + 1
      end, next_steps = { "ship" } },
    Step { step_id = "ship", step_type = "action", run = call("ship"), undo = call("fetch_back"),
      next_steps = { "more" } },
    Step { step_id = "more", step_type = "user_input", prompt = "More?", save_as = "more",
      input_schema = { type = "text" }, next_steps = { "end" } },
  }, ${more} } } }
`;
const NEW = 'migrate = function(state) return state end';

let place, outside, server, refused;
before(async () => {
  outside = await new Outside().start();
  outside.server.removeAllListeners('request');
  outside.server.on('request', (req, res) => {
    outside.requests.push({ url: req.url, key: req.headers['idempotency-key'] });
    req.resume();
    res.statusCode = refused.has(req.url.slice(1)) ? 500 : 200;
    res.setHeader('content-type', 'application/json');
    res.end('{"n":1}');
  });
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
const post = (id, what, body = {}) => server.post(`/v1/conversations/${id}/${what}`, body);
const asked = (from) => outside.requests.slice(from).map((r) => r.url.slice(1));
const reach = async (id, is) => {
  for (;;) {
    const now = await read(id);
    if (is(now)) return now;
    await new Promise((done) => setTimeout(done, 10));
  }
};

// Waits with its answer until a step is tried again, minutes later.
async function resting(fails = ['ship']) {
  refused = new Set(fails);
  const id = (await server.begin('shop', 'order')).json.conversation_id;
  const from = outside.requests.length;
  const parked = server.say(id, 'boots', { 'Idempotency-Key': `k-${id}` });
  await reach(id, (now) => now.status === 'active' && now.current_step === 'ship'
    && outside.requests.length === from + 2);
  await reach(id, () => place.run(['conversations', 'steps', id, '--json']).out
    .includes('"failed"'));
  return { id, parked, from };
}

// A rollback of both steps whose second undo is tried again minutes later.
async function undoing() {
  refused = new Set();
  const id = (await server.begin('shop', 'order')).json.conversation_id;
  const then = await read(id);
  assert.equal((await server.say(id, 'boots')).json.current_step, 'more');
  refused.add('refund');
  const from = outside.requests.length;
  const parked = post(id, 'rollback', { steps: 1 });
  await reach(id, () => asked(from).includes('refund'));
  await reach(id, () => JSON.parse(place.run(['conversations', 'steps', id, '--json']).out).items
    .some((s) => s.undoes && s.status === 'failed'));
  return { id, then, parked, from };
}

test('its user hears when, and a repeat waits', async () => {
  const { id, parked } = await resting();
  for (const body of [{ input: 'hello' }, { command: 'back' }, { command: 'cancel' }]) {
    const r = await post(id, 'messages', body);
    assert.deepEqual([r.status, r.json.code], [409, 'conversation.busy'], r.text);
    assert.ok(r.json.retry_after > 200 && r.json.retry_after <= 300, r.text);
  }
  const reused = await server.say(id, 'other', { 'Idempotency-Key': `k-${id}` });
  assert.deepEqual([reused.status, reused.json.code], [422, 'idempotency.key_reused']);
  assert.equal((await post(id, 'cancel')).json.status, 'cancelled');
  assert.equal((await parked).json.status, 'cancelled');
});

test('is paused, and goes on where it was', async () => {
  for (const cli of [false, true]) {
    const { id, parked } = await resting();
    const r = cli ? JSON.parse(place.run(['conversations', 'pause', id, '--json']).out)
      : (await post(id, 'pause')).json;
    assert.equal(r.status, 'paused', JSON.stringify(r));
    assert.equal(r.current_step, 'ship');
    const resumed = (await post(id, 'resume')).json;
    assert.equal(resumed.status, 'sleeping'); // the retry is as far away as it was
    const slept = await parked;
    assert.deepEqual([slept.status, slept.json.status], [200, 'sleeping'], slept.text);
    const said = await server.say(id, 'hello');
    assert.deepEqual([said.status, said.json.code], [409, 'conversation.not_waiting']);
    const back = await post(id, 'messages', { command: 'back' });
    assert.deepEqual([back.status, back.json.code], [409, 'rollback.irreversible'], back.text);
    const cancel = await post(id, 'messages', { command: 'cancel' });
    assert.match(cancel.json.detail, /the step 'ship' has failed, and is to be tried again\./);
  }
});

test('is rolled back, with force too', async () => {
  for (const body of [{ steps: 1, force: true }, { steps: 1 }]) {
    const { id, parked, from } = await resting();
    if (!body.force) { // nobody knows what the call that failed has done
      const cli = place.run(['conversations', 'rollback', id, '--steps', '1']);
      assert.equal(cli.code, 1);
      assert.match(cli.err, /taken back: ship;.*\[rollback\.irreversible\]/s);
      assert.equal((await read(id)).status, 'sleeping');
    }
    const r = await post(id, 'rollback', { steps: 1, force: true });
    assert.equal(r.json.prompt?.text, 'Item?', r.text);
    assert.equal((await parked).json.status, 'sleeping');
    assert.equal((await read(id)).state.noted, undefined);
    assert.deepEqual(asked(from), ['pay', 'ship', 'refund']);
  }
});

test('goes to another version, and is tried again there', async () => {
  const { id, parked } = await resting();
  const version = (await read(id)).flow_version;
  place.script('shop', SYSTEM(outside.url, NEW));
  assert.equal((await server.post('/v1/admin/reload', {})).status, 200);
  const dry = place.run(['conversations', 'migrate', id, '--dry-run', '--json']);
  assert.equal(dry.code, 0, dry.err);
  assert.equal(JSON.parse(dry.out).dry_run, true);
  const still = await read(id);
  assert.deepEqual([still.status, still.flow_version], ['sleeping', version]);
  const r = await post(id, 'migrate');
  assert.deepEqual([r.status, r.json.status], [200, 'sleeping'], r.text);
  assert.notEqual(r.json.flow_version, version);
  assert.equal((await parked).json.status, 'sleeping');
});

test('a rollback that waits goes on with force, without that step', async () => {
  const { id, then, parked, from } = await undoing();
  const r = await post(id, 'rollback', { steps: 1, force: true });
  assert.equal(r.status, 200, r.text);
  assert.equal(r.json.prompt.text, 'Item?');
  assert.deepEqual((await parked).json, r.json);
  assert.deepEqual(asked(from), ['fetch_back', 'refund']); // not once more
  assert.deepEqual((await read(id)).state, then.state);
});

test('a rollback that waits gives way to others', async () => {
  const { id, parked, from } = await undoing();
  const message = await server.say(id, 'no');
  assert.deepEqual([message.status, message.json.code], [409, 'conversation.busy']);
  assert.equal((await post(id, 'pause')).json.status, 'paused');
  const given = await parked;
  assert.deepEqual([given.status, given.json.code, given.json.step_id],
    [409, 'rollback.given_up', 'pay']);
  assert.equal((await post(id, 'resume')).json.prompt.text, 'More?');
  refused = new Set();
  const again = await post(id, 'rollback', { steps: 1 });
  assert.equal(again.json.prompt.text, 'Item?', again.text);
  assert.deepEqual(asked(from), ['fetch_back', 'refund', 'refund']); // the first stays undone
});

test('a cancel ends the rollback that waits', async () => {
  const { id, parked } = await undoing();
  assert.equal((await post(id, 'cancel')).json.status, 'cancelled');
  const ended = await parked;
  assert.deepEqual([ended.status, ended.json.code], [409, 'conversation.finished'], ended.text);
  assert.equal((await read(id)).status, 'cancelled');
});
