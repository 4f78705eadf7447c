// Each of many tenants (200, at night 10,000) has a store of its own, a conversation with a deadline and
// a value that only it knows. The host is killed, and finds every deadline again without opening every
// store; what it holds at the end is what a hundred tenants would take.
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import test from 'node:test';
import { Place, Server, wait } from './host.mjs';

const TENANTS = Number(process.env.TENANTS ?? (process.env.TIDEMILL_NIGHTLY === '1' ? 10000 : 200));
const AT_ONCE = 16;
// A deadline within the first third of the tenants, so that some are due at the kill.
const AFTER = Math.max(2, Math.round(TENANTS / 200));
const SCRIPT = `
local tm = require "tidemill"
return tm.system { name = "many", agents = {}, flows = { tm.ConversationFlow {
  flow_id = "ask", start_step = "ask", end_steps = { "done" },
  variables = { secret = "none" },
  steps = {
    tm.ConversationStep { step_id = "ask", step_type = "user_input", prompt = "Which secret?",
      on_no_input = { { after = ${AFTER}, say = "Are you still there?" } },
      input_schema = { type = "text" }, save_as = "secret", next_steps = { "again" } },
    tm.ConversationStep { step_id = "again", step_type = "user_input", prompt = "{secret}, is it?",
      input_schema = { type = "text" }, next_steps = { "done" } },
    tm.ConversationStep { step_id = "done", step_type = "action", run = function() return 1 end },
  } } } }
`;

const of = (i) => ({ 'x-tidemill-tenant': `tenant-${i}` });

// work(i) for each tenant, AT_ONCE at once.
const each = async (work) => {
  let next = 0;
  await Promise.all(Array.from({ length: AT_ONCE }, async () => {
    while (next < TENANTS) await work(next++);
  }));
};

const memory_kb = (pid) => Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]);
const descriptors = (pid) => readdirSync(`/proc/${pid}/fd`).length;

const said = async (s, i, id) => {
  const r = await s.get(`/v1/conversations/${id}/messages`, of(i));
  assert.equal(r.status, 200, r.text);
  return r.json.items.filter((m) => m.text === 'Are you still there?').length;
};

test(`${TENANTS} tenants with stores of their own: deadlines, a kill, bounded memory`, async (t) => {
  const p = new Place({ shipped: false, config: { tenants: { isolation: true } } });
  p.script('many', SCRIPT);
  let s = await new Server(p).start();
  const ids = [];
  let began = performance.now();
  const told = (what) => {
    t.diagnostic(`${what}: ${((performance.now() - began) / 1000).toFixed(1)} s`);
    began = performance.now();
  };
  await each(async (i) => {
    const r = await s.begin('many', 'ask', {}, of(i));
    assert.equal(r.status, 201, r.text);
    ids[i] = r.json.conversation_id;
  });
  told('begun');
  await s.kill();
  s = await new Server(p).start();
  told('started again');
  for (let i = 0; i < TENANTS; i++) {
    for (let tries = 0; (await said(s, i, ids[i])) === 0; tries++) {
      assert.ok(tries < 3000, `tenant ${i} was never asked again`);
      await wait(100);
    }
  }
  told('all deadlines were met');
  await each(async (i) => {
    assert.equal(await said(s, i, ids[i]), 1, `tenant ${i} was asked more than once`);
    const r = await s.say(ids[i], `secret ${i}`, of(i));
    assert.equal(r.status, 200, r.text);
    assert.equal(r.json.prompt?.text ?? r.json.prompt, `secret ${i}, is it?`);
    const other = await s.get(`/v1/conversations/${ids[(i + 1) % TENANTS]}`, of(i));
    assert.equal(other.status, 404, other.text);
  });
  told('all have answered');
  const kb = memory_kb(s.process.pid), open = descriptors(s.process.pid);
  t.diagnostic(`at most ${Math.round(kb / 1024)} MiB, ${open} descriptors`);
  // 64 stores stay open: some files and connections each, their caches.
  assert.ok(open < 64 * 10 + 200, `${open} descriptors`);
  assert.ok(kb < 300 * 1024, `${kb} KiB`);
  assert.equal((await s.stop()).code, 0);
  p.remove();
});
