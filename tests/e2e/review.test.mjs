// `review` with a real process: what a second agent does not let pass is never seen, and a kill
// while it looks at a reply repeats no call that was recorded.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Outside, Place, Server } from './host.mjs';

const SYSTEM = (url) => `
local tm = require "tidemill"
local function post(ctx, name, body)
  return ctx:http { method = "POST", url = "${url}/" .. name, json = body }
end
local writer = { respond = function(ctx, request)
  ctx.state.drafts = (ctx.state.drafts or 0) + 1
  local rejected = request.rejected
  post(ctx, "write", { rejected and rejected.reason or "nothing" })
  return (rejected and "second" or "first") .. " draft for " .. request.input
end }
local critic = { respond = function(ctx, request)
  post(ctx, "judge", { request.reply })
  if request.reply:find("second", 1, true) then return { outcome = "pass" } end
  return { outcome = "reject", text = "too short" }
end }
return tm.system { name = "shop", agents = { writer = writer, critic = critic }, flows = { tm.ConversationFlow {
  flow_id = "letter", start_step = "ask", steps = {
    tm.ConversationStep { step_id = "ask", step_type = "user_input", prompt = "Whom?",
      input_schema = { type = "text" }, next_steps = { "write" } },
    tm.ConversationStep { step_id = "write", step_type = "agent_response", agent = "writer", save_as = "letter",
      review = "critic", max_retries = 1, retry_delay = 0.01, next_steps = { "ask" } },
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

const get = async (path) => (await server.get(`/v1/conversations/${path}`)).json;
const begin = async () => (await server.begin('shop', 'letter')).json.conversation_id;
const asked = (from) => outside.requests.slice(from).map((r) => r.url.slice(1));

async function check_kept(id) {
  const now = await get(id);
  assert.equal(now.status, 'waiting_input');
  assert.deepEqual(now.state, { drafts: 1, letter: 'second draft for Ann' });
  const messages = (await get(`${id}/messages`)).items;
  assert.deepEqual(messages.filter((m) => m.role === 'agent').map((m) => m.text), ['second draft for Ann']);
  const steps = (await get(`${id}/steps`)).items.filter((s) => s.step_id === 'write');
  assert.deepEqual(steps.map((s) => [s.status, s.review.verdict, s.review.agent]),
    [['completed', 'pass', 'critic'], ['failed', 'reject', 'critic']]);
  assert.equal(steps[1].review.reason, 'too short');
  for (const part of [now, messages, steps]) assert.doesNotMatch(JSON.stringify(part), /first draft/);
}

test('what does not pass is written anew, and nobody sees it', async () => {
  const id = await begin();
  const from = outside.requests.length;
  const turn = await server.say(id, 'Ann');
  assert.deepEqual(turn.json.replies.map((r) => r.text), ['second draft for Ann']);
  assert.deepEqual(asked(from), ['write', 'judge', 'write', 'judge']);
  assert.match(outside.requests[from + 2].body, /too short/);
  await check_kept(id);
});

test('a kill while it is judged repeats the judging alone', async () => {
  const id = await begin();
  const from = outside.requests.length;
  let reached;
  const here = new Promise((done) => { reached = done; });
  outside.delay = (url) => {
    if (url !== '/judge') return 0;
    reached();
    return 300;
  };
  const lost = server.say(id, 'Ann').catch(() => 'lost');
  await here;
  await server.kill();
  outside.delay = () => 0;
  await lost;
  server = await new Server(place).start();
  while ((await get(id)).status === 'active') await new Promise((done) => setTimeout(done, 10));
  assert.deepEqual(asked(from), ['write', 'judge', 'judge', 'write', 'judge']);
  assert.equal(outside.requests[from + 1].key, outside.requests[from + 2].key);
  await check_kept(id);
});
