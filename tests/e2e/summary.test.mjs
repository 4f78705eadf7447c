// `conversation_summary` with real processes: an agent sums up what was said, the record and the
// command line show it, going back takes it away, and a kill in its midst changes nothing.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, test } from 'node:test';
import { Outside, Place, Server } from './host.mjs';

const SYSTEM = (url) => `
local tm = require "tidemill"
local scribe = { respond = function(ctx, request)
  local answer, err = ctx:http { method = "POST", url = "${url}/sum", json = request.transcript }
  if not answer then return nil, err end
  local said = {}
  for _, one in ipairs(request.transcript) do
    if one.role == "user" then said[#said + 1] = one.text end
  end
  return "about " .. table.concat(said, ", ")
end }
return tm.system { name = "shop", agents = { scribe = scribe }, flows = { tm.ConversationFlow {
  flow_id = "chat", start_step = "ask", settings = { enable_rollback = true, max_rollback_steps = 5,
    compress_state = true, encrypt_sensitive_data = true },
  steps = {
    tm.ConversationStep { step_id = "ask", step_type = "user_input", prompt = "What else?", save_as = "said",
      input_schema = { type = "text" }, next_steps = { "ask", "sum" }, conditional_logic = {
        condition = function(ctx) return ctx.output == "nothing" and "over" or "more" end, over = "sum", more = "ask" } },
    tm.ConversationStep { step_id = "sum", step_type = "agent_response", agent = "scribe",
      irreversible = false, metadata = { conversation_summary = true }, next_steps = { "ask" } },
  } } } }
`;

const KEY = randomBytes(32).toString('base64');
const config = { workflow_persistence: { general: { encryption_key: KEY } } };

let place, outside, server;
before(async () => {
  outside = await new Outside().start();
  place = new Place({ shipped: false, config });
  place.script('shop', SYSTEM(outside.url));
  server = await new Server(place).start();
});
after(async () => {
  await server?.kill();
  await outside?.stop();
  place?.remove();
});

const get = async (path) => (await server.get(`/v1/conversations/${path}`)).json;
const begin = async (extra) => (await server.begin('shop', 'chat', extra)).json.conversation_id;

test('what was said is summed up, shown, and taken back', async () => {
  const id = await begin({ message: 'Hello' });
  assert.equal((await get(id)).summary, null);
  await server.say(id, 'tea');
  const turn = await server.say(id, 'nothing');
  const summary = 'about Hello, tea, nothing';
  assert.deepEqual(turn.json.replies.map((r) => r.text), [summary]);
  assert.equal((await get(id)).summary, summary);
  const shown = place.run(['conversations', 'show', id]).out;
  assert.match(shown, new RegExp(`summary +${summary}`));
  assert.equal(JSON.parse(place.run(['conversations', 'show', id, '--json']).out).summary, summary);
  const sent = JSON.parse(outside.requests.at(-1).body);
  assert.deepEqual(sent.map((m) => m.role), ['user', 'prompt', 'user', 'prompt', 'user']);
  const back = await server.post(`/v1/conversations/${id}/rollback`, { steps: 1 });
  assert.equal(back.status, 200);
  assert.equal((await get(id)).summary, null);
  await server.say(id, 'cake');
  await server.say(id, 'nothing');
  assert.equal((await get(id)).summary, 'about Hello, tea, cake, nothing');
});

test('a fork sums up what was said before it, and a kill asks for the same again', async () => {
  const id = await begin();
  await server.say(id, 'tea');
  const fork = (await server.post(`/v1/conversations/${id}/fork`, {})).json.conversation_id;
  await server.say(id, 'coffee');
  const from = outside.requests.length;
  let reached;
  const here = new Promise((done) => { reached = done; });
  outside.delay = () => { reached(); return 300; };
  const lost = server.say(fork, 'nothing').catch(() => 'lost');
  await here;
  await server.kill();
  outside.delay = () => 0;
  await lost;
  server = await new Server(place).start();
  while ((await get(fork)).status === 'active') await new Promise((done) => setTimeout(done, 10));
  assert.equal((await get(fork)).summary, 'about tea, nothing');
  const [first, second] = outside.requests.slice(from);
  assert.equal(first.body, second.body);
  assert.equal(first.key, second.key);
});
