// Rollback over a parallel step: what the steps of its branches did is taken back by their own
// functions, and what cannot be is named by its own step.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Outside, Place, Server } from './host.mjs';

const SYSTEM = (url) => `
local tm = require "tidemill"
local Step = tm.ConversationStep

local function act(name, next_step, undo)
  local function send(ctx, what) return ctx:http { method = "POST", url = "${url}/" .. what } end
  return Step { step_id = name, step_type = "action", next_steps = { next_step },
    run = function(ctx)
      local answer, err = send(ctx, name)
      return answer and answer.status, err
    end,
    undo = undo and function(ctx) return send(ctx, undo) end }
end

local function flow(name, mail)
  return tm.ConversationFlow { flow_id = name, start_step = "ask",
    settings = { enable_rollback = true }, steps = {
      Step { step_id = "ask", step_type = "user_input", prompt = "Go?", save_as = "said",
        input_schema = { type = "text" }, next_steps = { "both" } },
      Step { step_id = "both", step_type = "parallel", concurrency = 2, next_steps = { "ask" },
        branches = { hotel = { act("book", "confirm", "unbook"), act("confirm", "end", "recall") },
          train = { act("reserve", mail, "release"), act("mail", "end") } } } } }
end

return tm.system { name = "trip", agents = {}, flows = { flow("quiet", "end"), flow("loud", "mail") } }
`;

let place, outside, server;
before(async () => {
  outside = await new Outside().start();
  place = new Place();
  place.script('trip', SYSTEM(outside.url));
  server = await new Server(place).start();
});
after(async () => {
  await server?.kill();
  await outside?.stop();
  place?.remove();
});

async function travelled(flow) {
  const id = (await server.begin('trip', flow)).json.conversation_id;
  assert.equal((await server.say(id, 'yes')).status, 200);
  return { id, from: outside.requests.length };
}
const back = (id, more) =>
  server.post(`/v1/conversations/${id}/rollback`, { steps: 1, ...more });
const asked = (from) => outside.requests.slice(from).map((r) => r.url.slice(1));

test('the steps of branches are undone one by one', async () => {
  const { id, from } = await travelled('quiet');
  const r = await back(id);
  assert.equal(r.status, 200, r.text);
  assert.equal(r.json.current_step, 'ask');
  assert.deepEqual(asked(from), ['release', 'recall', 'unbook']);
});

test('what cannot be taken back in a branch is named by its step', async () => {
  const { id, from } = await travelled('loud');
  const r = await back(id);
  assert.equal(r.json.code, 'rollback.irreversible');
  assert.match(r.json.detail, /taken back: mail;/);
  assert.deepEqual(asked(from), []);
  assert.equal((await back(id, { force: true })).status, 200);
  assert.deepEqual(asked(from), ['release', 'recall', 'unbook']);
});
