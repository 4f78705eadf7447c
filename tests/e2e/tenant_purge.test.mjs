// Everything of one tenant goes, with its key or without it, beside a running server or not.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Place, Server } from './host.mjs';
import { database } from './own_postgres.mjs';

const SYSTEM = `local tm = require "tidemill"
return tm.system { agents = {}, flows = { tm.ConversationFlow { flow_id = "ask", start_step = "ask",
  steps = {
    tm.ConversationStep { step_id = "ask", step_type = "user_input", prompt = "So?",
      input_schema = { type = "text" }, save_as = "said", next_steps = { "tell" } },
    tm.ConversationStep { step_id = "tell", step_type = "action", next_steps = { "ask" },
      run = function(ctx) ctx:emit("said", { what = ctx.state.said }) return 1 end },
  } } } }`;

const [redisHost, redisPort] = (process.env.TIDEMILL_TEST_REDIS ?? '').split(':');
const backends = {
  sqlite: { own: (p) => join(p.dir, 'data', 'workflow.db.tenants', 'ann.db') },
  file: { options: (p) => ({ file: { storage_directory: join(p.dir, 'files') } }),
    own: (p) => join(p.dir, 'files', 'tenant_ann', 'tidemill.json') },
  redis: { needs: redisPort,
    options: (p, { number }) => ({ redis: { host: redisHost, port: Number(redisPort), db: number } }) },
  postgres: { needs: process.env.TIDEMILL_TEST_POSTGRES, make: database,
    options: (p, db) => ({ postgres: { url: db.url } }) },
};

const ann = { 'x-tidemill-tenant': 'ann' }, bob = { 'x-tidemill-tenant': 'bob' };
const count = async (server, of) => (await server.get('/v1/conversations', of)).json.items.length;

for (const [backend, { needs = 'nothing', make, options, own }] of Object.entries(backends)) {
  for (const isolated of [false, true]) {
    test(`${backend}, ${isolated ? 'apart' : 'together'}: a tenant goes`, async (t) => {
      if (!needs) return t.skip(`there is no ${backend}`);
      const p = new Place({ shipped: false, config: { tenants: { isolation: isolated },
        webhooks: { url: 'http://127.0.0.1:9/', secret: 'x'.repeat(32) } } });
      const db = make?.() ?? { number: isolated ? 15 : 14, remove() {} };
      const keys = join(p.dir, 'keys'), persistence = p.settings.workflow_persistence;
      mkdirSync(keys);
      Object.assign(persistence, { backend, ...options?.(p, db),
        general: { enable_encryption: true, tenant_keys: keys } });
      if (backend !== 'sqlite') delete persistence.sqlite;
      writeFileSync(p.config, JSON.stringify(p.settings));
      const give = (tenant) =>
        writeFileSync(join(keys, `${tenant}.key`), `${randomBytes(32).toString('base64')}\n`);
      const purge = (...more) => p.run(['purge', ...more]);
      const purged = (...more) => {
        const r = purge('--tenant', 'ann', '--json', ...more);
        assert.equal(r.code, 0, r.err);
        return JSON.parse(r.out);
      };
      give('ann');
      give('bob');
      p.script('desk', SYSTEM);
      let server = await new Server(p).start();
      const begun = async (of) => {
        const r = await server.begin('desk', 'ask', { session_id: 's1' }, of);
        assert.equal(r.status, 201, r.text);
        const said = await server.say(r.json.conversation_id, 'hello', of);
        assert.equal(said.status, 200, said.text);
        return r.json.conversation_id;
      };
      const hers = await begun(ann), his = await begun(bob);
      const fork = await server.post(`/v1/conversations/${hers}/fork`, {}, ann);
      assert.equal(fork.status, 201, fork.text);
      rmSync(join(keys, 'ann.key'));

      const refused = purge('--tenant', 'ann');
      assert.equal(refused.code, 2);
      assert.match(refused.err, /--dry-run/);
      assert.equal(purge('--force').code, 2);
      const unknown = purge('--tenant', 'an', '--force');
      assert.equal(unknown.code, 1);
      assert.match(unknown.err, /\[tenant\.not_found\]/);
      if (isolated && own) assert.ok(!existsSync(own(p).replace('ann', 'an')));

      const all = { tenant: 'ann', conversations: 2, sessions: 1, events: 1 };
      assert.deepEqual(purged('--dry-run'), { ...all, dry_run: true, store_stays: false });
      assert.equal(await count(server, ann), 2);
      assert.deepEqual(purged('--force'), { ...all, dry_run: false, store_stays: isolated });
      assert.equal(await count(server, ann), 0);
      assert.equal((await server.get(`/v1/conversations/${hers}`, ann)).status, 404);
      assert.equal((await server.get('/v1/sessions/s1', ann)).status, 404);
      assert.deepEqual((await server.get('/v1/outbox', ann)).json.items, []);
      assert.equal(await count(server, bob), 1);
      assert.equal((await server.say(his, 'more', bob)).status, 200);
      if (isolated && own) {
        assert.ok(existsSync(own(p)), 'the server has it open');
        await server.stop();
        const rest = { ...all, conversations: 0, sessions: 0, events: 0, dry_run: false };
        assert.deepEqual(purged('--force'), { ...rest, store_stays: false });
        assert.ok(!existsSync(own(p)));
        server = await new Server(p).start();
      }
      if (!isolated || own) assert.match(purge('--tenant', 'ann', '--force').err, /tenant\.not_found/);
      give('ann');
      await begun(ann);
      assert.equal(await count(server, ann), 1);
      assert.equal(purge('--tenant', 'ann', '--force').out,
        'removed of tenant ann: 1 conversation, 1 session, 1 event that were not delivered\n'
        + (isolated ? 'its own store is empty and stays\n' : ''));
      await server.stop();
      db.remove();
      p.remove();
    });
  }
}

test('a damaged store of a tenant goes as well', async () => {
  const p = new Place({ shipped: false, config: { tenants: { isolation: true } } });
  p.script('desk', SYSTEM.replace('ctx:emit("said", { what = ctx.state.said })', ''));
  const server = await new Server(p).start();
  assert.equal((await server.begin('desk', 'ask', {}, ann)).status, 201);
  await server.stop();
  const own = join(p.dir, 'data', 'workflow.db.tenants', 'ann.db');
  writeFileSync(own, 'damaged '.repeat(1000));
  const r = p.run(['purge', '--tenant', 'ann', '--force']);
  assert.equal(r.code, 0, r.err);
  assert.ok(!existsSync(own));
  assert.match(p.run(['purge', '--tenant', 'ann', '--force']).err, /tenant\.not_found/);
  p.remove();
});
