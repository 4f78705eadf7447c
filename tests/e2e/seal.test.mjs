// Sealed stores from outside: what the user typed is in no file and no log, a destroyed key takes its
// tenant's data along, and each way of having no key is refused with the remedy.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, readSync, rmSync,
  writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Place, Server, wait } from './host.mjs';

const MARKER = 'marzipan-4711-quince';
const newKey = () => randomBytes(32).toString('base64');

// Every file below a folder, as far as it can be read just now.
const files = (dir) => readdirSync(dir, { withFileTypes: true }).flatMap((e) => {
  const path = join(dir, e.name);
  return e.isDirectory() ? files(path) : e.isFile() ? [path] : [];
});
const holders = (dir, text) => files(dir).filter((f) => {
  try { return readFileSync(f).includes(text); } catch { return false; }
});

const talk = (settings) => `
local tm = require "tidemill"
local flow = tm.ConversationFlow { flow_id = "f", start_step = "ask", settings = { ${settings} },
  pattern = tm.ConversationPattern.STEP_BY_STEP_PROCESS,
  steps = {
    tm.ConversationStep { step_id = "ask", step_type = "user_input", prompt = "And?",
      input_schema = { type = "text" }, save_as = "said", next_steps = { "reply" } },
    tm.ConversationStep { step_id = "reply", step_type = "agent_response", agent = "clerk",
      response = "You said {said}.", next_steps = { "ask" } } } }
return tm.system { name = "talk", flows = { flow },
  agents = { clerk = tm.AssistantAgent { user_id = "clerk", system_message = "You repeat." } } }
`;

const place = (general, { settings = '', persistence = {} } = {}) => {
  const made = new Place({ shipped: false, config: { log: { level: 'debug' },
    workflow_persistence: { ...persistence, general } } });
  made.script('talk', talk(settings));
  return made;
};
const configure = (p, general) => {
  p.settings.workflow_persistence.general = general;
  writeFileSync(p.config, JSON.stringify(p.settings));
};
const begin = async (server, headers = {}) => {
  const r = await server.begin('talk', 'f', { user_id: `${MARKER}-user`, message: MARKER,
    metadata: { from: MARKER } }, headers);
  assert.equal(r.status, 201, r.text);
  return r.json.conversation_id;
};
const hear = async (server, id, headers = {}) => {
  const r = await server.say(id, MARKER, headers);
  assert.equal(r.status, 200, r.text);
  assert.ok(r.json.replies.some((m) => m.text.includes(MARKER)));
};
const transcript = (server, id, headers) => server.get(`/v1/conversations/${id}/messages`, headers);

// Where each backend keeps its bytes, once there is such a backend.
const postgres = process.env.TIDEMILL_TEST_POSTGRES ?? '';
const redis = process.env.TIDEMILL_TEST_REDIS ?? '';
const [redisHost, redisPort] = redis.split(':');
const asked = (command, args) => {
  const r = spawnSync(command, args, { encoding: 'utf8' });
  assert.equal(r.status, 0, r.stderr);
  return r.stdout.trim();
};
const backends = {
  sqlite: { where: (p) => join(p.dir, 'data') },
  file: { options: (dir) => ({ file: { storage_directory: dir } }), where: (p) => join(p.dir, 'files') },
  redis: { needs: redis, options: () => ({ redis: { host: redisHost, port: Number(redisPort), db: 3 } }),
    where: () => asked('redis-cli', ['-h', redisHost, '-p', redisPort, 'config', 'get', 'dir'])
      .split('\n')[1] },
  postgres: { needs: postgres, options: () => ({ postgres: { url: postgres } }),
    where: () => asked('psql', [postgres, '-Atc', 'checkpoint', '-c', 'show data_directory'])
      .split('\n').pop() },
};

for (const [backend, { needs = 'nothing', options, where }] of Object.entries(backends)) {
  test(`${backend}: no file holds what the user typed`, async (t) => {
    const p = place({ enable_encryption: true, enable_compression: true, encryption_key: newKey() });
    const persistence = p.settings.workflow_persistence;
    persistence.backend = backend;
    Object.assign(persistence, options?.(join(p.dir, 'files')));
    writeFileSync(p.config, JSON.stringify(p.settings));
    if (!needs || /not supported yet/.test(p.run(['config']).err)) {
      p.remove();
      return t.skip(`there is no ${backend} yet`);
    }
    let server = await new Server(p).start();
    const id = await begin(server);
    for (let i = 0; i < 20; i++) await hear(server, id);
    assert.ok(files(where(p)).length > 0);
    assert.deepEqual(holders(where(p), MARKER), []);
    await server.kill(); // its files as they are without a clean end
    assert.deepEqual(holders(where(p), MARKER), []);
    assert.ok(!server.errors.includes(MARKER), 'the log');
    server = await new Server(p).start();
    const heard = await transcript(server, id);
    assert.equal(heard.status, 200, heard.text);
    assert.ok(heard.text.includes(MARKER));
    await hear(server, id);
    const metrics = await server.get('/metrics');
    assert.ok(!metrics.text.includes(MARKER));
    await server.stop();
    assert.deepEqual(holders(where(p), MARKER), []);
    assert.ok(!server.errors.includes(MARKER), 'the log');
    p.remove();
  });
}

test('a flow seals its own conversations', async () => {
  const p = place({ encryption_key: newKey() }, { settings: 'encrypt_sensitive_data = true' });
  const server = await new Server(p).start();
  const id = await begin(server);
  await hear(server, id);
  assert.deepEqual(holders(join(p.dir, 'data'), MARKER), []);
  await server.stop();
  p.script('talk', talk(''));
  const again = await new Server(p).start();
  await hear(again, await begin(again));
  assert.notDeepEqual(holders(join(p.dir, 'data'), MARKER), [], 'nobody asks for it any more');
  await again.stop();
  p.remove();
});

test('the customer service takes less than half of the bytes', async () => {
  const size = async (general) => {
    const p = new Place({ config: { workflow_persistence: { general } } });
    const server = await new Server(p).start();
    const r = await server.begin('customer_service', 'comprehensive_workflow');
    for (const input of ['We must migrate our whole integration with the billing system of three '
      + 'subsidiaries to the new interface before the audit, and need a plan for it.',
    { specific_requirements: 'no downtime', timeline: 'Soon (this week)' },
    'Good, but I have some questions', 'Who signs off on the plan?', '2',
    'And how long does it take?', 'i need help with something else', 'Where is my last invoice?',
    'It is fine, only a little slow']) {
      const turn = await server.say(r.json.conversation_id, input);
      assert.equal(turn.status, 200, turn.text);
    }
    await server.stop();
    const sum = asked('sqlite3', [p.database, 'SELECT sum(length(CAST(body AS BLOB))) FROM journal']);
    p.remove();
    return Number(sum);
  };
  const plain = await size({});
  const both = await size({ enable_compression: true, enable_encryption: true,
    encryption_key: newKey() });
  console.log(`# customer service: ${plain} bytes, compressed and sealed ${both}: `
    + (both / plain).toFixed(3));
  assert.ok(both < plain / 2, `${both} of ${plain}`);
});

const said = async (server, text) => {
  for (let i = 0; i < 200 && !server.errors.includes(text); i++) await wait(50);
  assert.ok(server.errors.includes(text), `never said: ${text}\n${server.errors}`);
};

test('from plain to sealed, and from one key to the next', async () => {
  const p = place({});
  const data = join(p.dir, 'data'), first = newKey(), second = newKey();
  let server = await new Server(p).start();
  const id = await begin(server);
  for (let i = 0; i < 30; i++) await hear(server, id);
  await server.stop();
  assert.notDeepEqual(holders(data, MARKER), []);
  const restart = async (general) => {
    configure(p, { enable_encryption: true, ...general });
    server = await new Server(p).start();
  };
  const done = 'all that has to be is sealed with the keys of today';

  await restart({ encryption_key: first });
  const refused = await transcript(server, id);
  assert.equal(refused.json.code, 'seal.plaintext', refused.text);
  assert.match(refused.json.detail, /accept_plaintext/);
  await server.stop();
  await restart({ encryption_key: first, accept_plaintext: true });
  await hear(server, id);
  await said(server, done);
  await server.stop();

  await restart({ encryption_key: first });
  await hear(server, id);
  await server.kill();
  await restart({ encryption_key: second, previous_encryption_keys: [first] });
  await hear(server, id); // at once, with rows of both keys
  await said(server, done);
  assert.match(server.errors, /not_needed=[0-9a-f]{16}/);
  await server.stop();
  await restart({ encryption_key: second });
  await hear(server, id);
  const all = await transcript(server, id, {});
  assert.equal(all.status, 200, all.text);
  await server.stop();
  await restart({ encryption_key: first });
  assert.equal((await transcript(server, id)).json.code, 'seal.key_unknown');
  await server.stop();
  const flags = asked('sqlite3', [join(data, 'workflow.db'),
    'SELECT DISTINCT flags & 2 FROM journal UNION SELECT flags & 2 FROM sessions']);
  assert.equal(flags, '2', 'every row and session is sealed');
  p.remove();
});

test('a damaged log keeps no other from getting the new key', async () => {
  const p = place({});
  const persistence = p.settings.workflow_persistence, dir = join(p.dir, 'files');
  Object.assign(persistence, { backend: 'file', file: { storage_directory: dir } });
  delete persistence.sqlite;
  const first = newKey(), second = newKey(), ids = [];
  configure(p, { enable_encryption: true, encryption_key: first });
  let server = await new Server(p).start();
  for (let i = 0; i < 3; i++) {
    ids.push(await begin(server));
    for (let n = 0; n < 3; n++) await hear(server, ids[i]);
  }
  await server.stop();
  const log = join(dir, 'conversations', ids[1].slice(-3), `${ids[1]}.log`);
  const bytes = readFileSync(log);
  writeFileSync(log, bytes.fill(0x55, bytes.length >> 1, (bytes.length >> 1) + 40));
  configure(p, { enable_encryption: true, encryption_key: second, previous_encryption_keys: [first] });
  server = await new Server(p).start();
  await said(server, 'not everything could be sealed');
  assert.ok(server.errors.includes(log));
  await server.stop();
  configure(p, { enable_encryption: true, encryption_key: second });
  server = await new Server(p).start();
  for (const id of [ids[0], ids[2]]) {
    const heard = await transcript(server, id);
    assert.equal(heard.status, 200, heard.text);
  }
  assert.equal((await transcript(server, ids[1])).status, 500);
  await server.stop();
  p.remove();
});

test('what a restore brings is sealed with the key of today', async () => {
  const p = place({}), first = newKey(), second = newKey();
  const file = join(p.dir, 'backup.db');
  configure(p, { enable_encryption: true, encryption_key: first });
  let server = await new Server(p).start();
  const id = await begin(server);
  await server.stop();
  const ok = (args) => {
    const r = p.run(args);
    assert.equal(r.code, 0, r.err);
  };
  ok(['backup', file]);
  rmSync(join(p.dir, 'data'), { recursive: true });
  const renew = async () => {
    server = await new Server(p).start();
    await said(server, 'all that has to be is sealed with the keys of today');
    await server.stop();
  };
  configure(p, { enable_encryption: true, encryption_key: second, previous_encryption_keys: [first] });
  await renew(); // of nothing
  ok(['restore', file]);
  await renew();
  assert.match(server.errors, /sealed=[1-9]/);
  configure(p, { enable_encryption: true, encryption_key: second });
  server = await new Server(p).start();
  await hear(server, id);
  await server.stop();
  p.remove();
});

test('a destroyed key takes the tenant along, and nobody else', async () => {
  const p = place({});
  const keys = join(p.dir, 'keys');
  mkdirSync(keys);
  configure(p, { enable_encryption: true, tenant_keys: keys });
  const ann = { 'x-tidemill-tenant': 'ann' }, bob = { 'x-tidemill-tenant': 'bob' };
  const server = await new Server(p).start();
  const refused = await server.begin('talk', 'f', {}, ann);
  assert.equal(refused.status, 503, refused.text);
  assert.equal(refused.json.code, 'seal.key_missing');
  assert.ok(refused.json.detail.includes(`openssl rand -base64 32 > ${join(keys, 'ann.key')}`));
  for (const tenant of ['ann', 'bob']) writeFileSync(join(keys, `${tenant}.key`), `${newKey()}\n`);
  const hers = await begin(server, ann), his = await begin(server, bob);
  await hear(server, hers, ann);
  rmSync(join(keys, 'ann.key'));
  let gone;
  for (let i = 0; i < 40 && gone?.status !== 503; i++) {
    await wait(100);
    gone = await transcript(server, hers, ann);
  }
  assert.equal(gone.json.code, 'seal.key_missing', gone.text);
  assert.equal((await server.say(hers, 'hello', ann)).status, 503);
  await hear(server, his, bob);
  assert.equal((await server.get('/readyz')).status, 200);
  writeFileSync(join(keys, 'ann.key'), `${newKey()}\n`); // another one opens nothing
  const lost = await transcript(server, hers, ann);
  assert.equal(lost.status, 500, lost.text);
  assert.equal(lost.json.code, 'seal.key_unknown');
  await hear(server, await begin(server, ann), ann);
  await server.stop();
  p.remove();
});

test('no key, a wrong one, and words that are none', async () => {
  const p = place({ enable_encryption: true });
  const fails = (args, ...patterns) => {
    const r = p.run(args);
    assert.equal(r.code, 1, r.out);
    for (const pattern of patterns) assert.match(r.err, pattern);
    return r;
  };
  fails(['serve'], /agent_config\.yaml:\d+: \S+\.general\.enable_encryption: .*openssl rand -base64 32/,
    /\[seal\.no_key\]/);
  configure(p, { enable_encryption: true, encryption_key: 'correct horse battery staple' });
  const word = fails(['serve'], /agent_config\.yaml:\d+: \S+\.general\.encryption_key: this is no key/, /openssl rand -base64 32/,
    /\[seal\.key_invalid\]/);
  assert.ok(!word.err.includes('horse'));
  configure(p, { tenant_keys: join(p.dir, 'nowhere') });
  fails(['serve'], /there is no such folder/, /\[seal\.folder\]/);
  configure(p, {});
  p.script('talk', talk('encrypt_sensitive_data = true'));
  const checked = p.run(['check']);
  assert.equal(checked.code, 1);
  assert.match(checked.out + checked.err, /init\.lua:\d+: error: flow 'f': .*openssl rand -base64 32/);
  p.remove();
});

test('keys are shown nowhere', async () => {
  const p = place({});
  const key = newKey(), old = newKey();
  const secret = join(p.dir, 'secret.key');
  writeFileSync(secret, `${key}\n`);
  configure(p, { enable_encryption: true, previous_encryption_keys: [old] });
  const env = { AMBIVO_AGENTS_WORKFLOW_PERSISTENCE_GENERAL_ENCRYPTION_KEY_FILE: secret };
  for (const args of [['config'], ['config', '--json']]) {
    const shown = p.run(args, { env });
    assert.equal(shown.code, 0, shown.err);
    for (const k of [key, old]) assert.ok(!(shown.out + shown.err).includes(k));
    assert.match(shown.out, /hidden/);
  }
  configure(p, { enable_encryption: true });
  const server = await new Server(p).start([], env);
  const id = await begin(server);
  await hear(server, id);
  assert.deepEqual(inCore(server.process.pid, [Buffer.from(key), Buffer.from(key, 'base64')]), []);
  await server.stop();
  assert.ok(!server.errors.includes(key));
  p.remove();
});

// The mappings of a process that a core dump would contain, and which of the texts are there.
function inCore(pid, texts) {
  const maps = readFileSync(`/proc/${pid}/smaps`, 'latin1').split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m);
  const mem = openSync(`/proc/${pid}/mem`, 'r');
  const found = [];
  let looked = 0;
  for (const map of maps) {
    const m = map.match(/^([0-9a-f]+)-([0-9a-f]+) (....) .*?(\S*)\n/);
    if (!m || m[3][0] !== 'r' || /^VmFlags:.* dd/m.test(map) || m[4].startsWith('[v')) continue;
    for (let at = parseInt(m[1], 16), end = parseInt(m[2], 16); at < end; at += 1 << 20) {
      const bytes = Buffer.alloc(Math.min(end - at, (1 << 20) + 64));
      let n = 0;
      try { n = readSync(mem, bytes, 0, bytes.length, at); } catch { continue; }
      looked += n;
      for (const text of texts)
        if (bytes.subarray(0, n).includes(text)) found.push(`${m[0].trim()}: ${text.length} bytes`);
    }
  }
  closeSync(mem);
  assert.ok(looked > 1 << 20, 'the memory of the process was read');
  return found;
}
