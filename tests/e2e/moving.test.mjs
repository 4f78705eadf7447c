// Backups, restoring and copying as an operator does them: under load, killed, with bad files.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  chmodSync, closeSync, copyFileSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync,
  readlinkSync, readSync, rmSync, statSync, truncateSync, writeFileSync, writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { noted, Place, program, Server, wait } from './host.mjs';

const SAID = 'Where is my parcel, please?';
const begin = async (server) => {
  const r = await server.begin('customer_service', 'comprehensive_workflow');
  assert.equal(r.status, 201, r.text);
  return r.json.conversation_id;
};
const sqlite = (file, sql) => {
  const r = spawnSync('sqlite3', [file, sql], { encoding: 'utf8' });
  assert.equal(r.status, 0, r.stderr);
  return r.stdout.trim();
};
// A command that runs beside us; resolves with its end.
const start = (place, args, { prefix = '' } = {}) => {
  const child = spawn('sh', ['-c', `${prefix}exec "$@"`, 'sh', program, ...args, '--config',
    place.config], { cwd: place.dir, stdio: ['ignore', 'pipe', 'pipe'] });
  const got = { out: '', err: '' };
  child.stdout.on('data', (d) => { got.out += d; });
  child.stderr.on('data', (d) => { got.err += d; });
  const end = new Promise((done) => child.on('close', (code, signal) => {
    noted(got.out);
    noted(got.err);
    done({ ...got, code, signal });
  }));
  return { child, end };
};
const good = (r) => {
  assert.equal(r.code, 0, r.err + r.out);
  return JSON.parse(r.out);
};
const refused = (r, code, status = 1) => {
  assert.equal(r.code, status, r.err + r.out);
  assert.match(r.err, new RegExp(`\\[${code.replace('.', '\\.')}\\]\n$`, 'm'));
};
// A configuration beside the place's own whose store is `file`.
const other = (place, file) => {
  const settings = structuredClone(place.settings);
  settings.workflow_persistence.sqlite.database_path = file;
  const config = join(place.dir, `other-${readdirSync(place.dir).length}.yaml`);
  writeFileSync(config, JSON.stringify(settings));
  return { dir: place.dir, config };
};
// A store with `count` conversations of two turns.
const filled = async (count) => {
  const place = new Place();
  const server = await new Server(place).start();
  const ids = [];
  for (let i = 0; i < count; i++) {
    ids.push(await begin(server));
    assert.equal((await server.say(ids[i], SAID)).status, 200);
  }
  return { place, server, ids };
};

test('a backup of a server under load can be served', async () => {
  const { place, server, ids } = await filled(20);
  const known = new Map(ids.map((id) => [id, 2]));
  let over = false;
  const client = async (mine) => {
    while (!over) {
      const id = await begin(server);
      const r = await server.say(mine, SAID, {});
      if (r.status !== 200) mine = id;
    }
  };
  const clients = [client(ids[0]), client(ids[1]), client(ids[2])];
  const report = good(await start(place, ['backup', 'b.db', '--json']).end);
  const second = good(await start(place, ['backup', 'b.db', '--json', '--force']).end);
  over = true;
  await Promise.all(clients);
  assert.ok(report.conversations >= 20 && report.failures === 0);
  assert.ok(second.conversations >= report.conversations);
  assert.match(report.digest, /^[0-9a-f]{64}$/);
  await server.stop();
  assert.deepEqual(readdirSync(place.dir).filter((f) => f.startsWith('b.db')), ['b.db']);
  const twin = await new Server(other(place, join(place.dir, 'b.db'))).start();
  for (const [id, revision] of known) {
    const r = await twin.get(`/v1/conversations/${id}`);
    assert.ok(r.json.revision >= revision, r.text);
  }
  const again = await twin.say(ids[5], 'Thank you.');
  assert.equal(again.status, 200, again.text);
  await twin.stop();
  place.remove();
});

test('a copy that is killed again and again arrives', async () => {
  const { place, server } = await filled(150);
  await server.stop();
  const copy = ['store', 'copy', '--to', 'sqlite:t.db', '--json'];
  for (let i = 0; i < 12; i++) {
    const run = start(place, copy);
    await wait(3 * i);
    run.child.kill('SIGKILL');
    await run.end;
  }
  const report = good(place.run(copy));
  const fresh = good(place.run(['store', 'copy', '--to', 'sqlite:fresh.db', '--json']));
  assert.equal(report.conversations, 150);
  assert.equal(report.digest, fresh.digest);
  const target = join(place.dir, 't.db');
  const what = 'SELECT conversation,revision,kind,body FROM journal ORDER BY 1,2';
  assert.equal(sqlite(target, what), sqlite(place.database, what));
  assert.equal(sqlite(target, 'PRAGMA integrity_check'), 'ok');
  const repeat = good(place.run(copy));
  assert.equal(repeat.copied + repeat.rows + repeat.scripts, 0);
  place.remove();
});

const opens = (pid, name) => {
  try {
    return readdirSync(`/proc/${pid}/fd`).some((fd) => {
      try { return readlinkSync(`/proc/${pid}/fd/${fd}`).endsWith(name); } catch { return false; }
    });
  } catch { return false; }
};

test('a signal stops it where that is safe, and it says how to go on', async () => {
  const { place, server } = await filled(3);
  const copy = ['store', 'copy', '--to', 'sqlite:t.db', '--json'];
  good(place.run(copy));
  for (let i = 0; i < 3; i++) await begin(server);
  await server.stop();
  const locker = spawn('sqlite3', [join(place.dir, 't.db')], { stdio: ['pipe', 'pipe', 'inherit'] });
  locker.stdin.write('BEGIN IMMEDIATE;\nSELECT 1;\n');
  await new Promise((done) => locker.stdout.once('data', done));
  const run = start(place, copy); // it waits for the lock
  while (!opens(run.child.pid, '/t.db-wal')) await wait(5);
  run.child.kill('SIGINT');
  locker.stdin.end('ROLLBACK;\n');
  const end = await run.end;
  refused(end, 'copy.stopped');
  assert.match(end.err, /run the same again to go on/);
  assert.equal(good(place.run(copy)).conversations, 6);
  place.remove();
});

test('restoring', async () => {
  const { place, server, ids } = await filled(4);
  good(place.run(['backup', 'b.db', '--json']));
  refused(place.run(['backup', 'b.db']), 'backup.exists');
  assert.equal(spawnSync('mkfifo', [join(place.dir, 'pipe')]).status, 0);
  mkdirSync(join(place.dir, 'folder'));
  for (const to of ['pipe', 'folder'])
    refused(place.run(['backup', to, '--force']), 'backup.exists');
  assert.ok(statSync(join(place.dir, 'pipe')).isFIFO());
  refused(place.run(['restore', 'b.db']), 'store.in_use');
  for (const beside of ['-wal', '-shm', '-journal', '.lock', '.tenants', '.partial'])
    refused(place.run(['backup', `data/workflow.db${beside}`, '--force']), 'store.same');
  refused(place.run(['backup', 'data/workflow.db', '--force']), 'store.same');
  refused(place.run(['store', 'copy', '--from', 'config', '--to', `sqlite:${place.database}`]),
    'store.same');
  const gone = (await server.get(`/v1/conversations/${ids[0]}`)).json.revision;
  assert.equal((await server.say(ids[0], 'Thank you.')).status, 200);
  const fresh = await begin(server);
  await server.stop();
  const kept = place.run(['restore', 'b.db']);
  refused(kept, 'restore.not_empty');
  assert.match(kept.err, /1 conversations that the backup does not have, and 1 that went on/);
  const report = good(place.run(['restore', 'b.db', '--force', '--json']));
  assert.equal(report.removed, 1);
  const again = await new Server(place).start();
  assert.equal((await again.get(`/v1/conversations/${ids[0]}`)).json.revision, gone);
  assert.equal((await again.get(`/v1/conversations/${fresh}`)).status, 200, 'it stays');
  assert.equal((await again.say(ids[0], 'Thank you.')).status, 200);
  await again.stop();
  const empty = other(place, join(place.dir, 'new/store.db'));
  const r = await start(empty, ['restore', 'b.db', '--json']).end;
  assert.equal(good(r).copied, 4);
  const elsewhere = await new Server(empty).start();
  const turn = await elsewhere.get(`/v1/conversations/${ids[3]}`);
  assert.equal(turn.json.revision, 2, turn.text);
  await elsewhere.stop();
  place.remove();
});

// Empty places on the servers of tests/servers.sh.
let redisBase = process.pid % 20;
const onRedis = () => {
  const at = process.env.TIDEMILL_TEST_REDIS;
  assert.ok(at, 'run this through tests/servers.sh');
  return `redis://${at}/${1000 + (redisBase++ % 24)}`;
};
const onPostgres = (suffix = '') => {
  const at = process.env.TIDEMILL_TEST_POSTGRES;
  assert.ok(at, 'run this through tests/servers.sh');
  const name = `moving_${process.pid}_${suffix}${Date.now()}`;
  const made = spawnSync('psql', [at, '-qc', `CREATE DATABASE ${name}`], { encoding: 'utf8' });
  assert.equal(made.status, 0, made.stderr);
  return at.replace(/\/[^/]*$/, `/${name}`);
};

test('from backend to backend, and back', async () => {
  const { place, server, ids } = await filled(8);
  await server.stop();
  const built = (url) => !place.run(['store', 'copy', '--from', url, '--to', 'sqlite:x.db'])
    .err.includes('[store.unknown]');
  const stops = ['file:states'];
  if (built('redis://127.0.0.1:1')) stops.push(onRedis());
  if (built('postgres://127.0.0.1:1/x')) stops.push(onPostgres());
  stops.push('sqlite:back.db');
  let from = 'config', digest;
  for (const to of stops) {
    const report = good(place.run(['store', 'copy', '--from', from, '--to', to, '--json']));
    assert.equal(report.copied, 8, to);
    assert.equal(report.rows, 16, to);
    assert.equal(report.digest, digest ?? report.digest, `${from} -> ${to}`);
    assert.ok(!JSON.stringify(report).includes('secret'), to);
    digest = report.digest;
    from = to;
  }
  const served = await new Server(other(place, join(place.dir, 'back.db'))).start();
  assert.equal((await served.say(ids[1], 'Thank you.')).status, 200);
  await served.stop();
  place.settings.workflow_persistence = {
    backend: 'file', file: { storage_directory: join(place.dir, 'states') } };
  writeFileSync(place.config, JSON.stringify(place.settings));
  const files = await new Server(place).start();
  assert.equal((await files.say(ids[2], 'Thank you.')).status, 200);
  const online = good(await start(place, ['backup', 'of-files.db', '--json']).end);
  assert.equal(online.conversations, 8);
  refused(await start(place, ['restore', 'of-files.db']).end, 'store.in_use');
  await files.stop();
  assert.equal(good(place.run(['restore', 'of-files.db', '--json'])).copied, 0);
  assert.equal(place.run(['doctor', '--deep']).code, 0);
  place.remove();
});

test('tenants with stores of their own, while they are served', async () => {
  const place = new Place({ config: { tenants: { isolation: true } } });
  const server = await new Server(place).start();
  const known = new Map();
  for (const tenant of ['a', 'b', 'c', 'a']) {
    const as = { 'x-tidemill-tenant': tenant };
    const r = await server.begin('customer_service', 'comprehensive_workflow', {}, as);
    assert.equal(r.status, 201, r.text);
    known.set(r.json.conversation_id, tenant);
  }
  const report = good(place.run(['backup', 'b.db', '--json']));
  assert.equal(report.tenants, 3);
  assert.equal(report.conversations, 4);
  const again = good(place.run(['backup', 'b.db', '--json', '--force']));
  assert.equal(again.digest, report.digest);
  const files = () => readdirSync(place.dir).filter((f) => f.startsWith('b.db'));
  assert.deepEqual(files(), ['b.db', 'b.db.tenants']);
  const stores = readdirSync(join(place.dir, 'b.db.tenants')).filter((f) => f.endsWith('.db'));
  assert.deepEqual(stores, ['a.db', 'b.db', 'c.db']);
  await server.stop();
  const what = 'SELECT tenant,wake_at FROM tenants ORDER BY 1';
  assert.equal(sqlite(join(place.dir, 'b.db'), what), sqlite(place.database, what));
  const fresh = other(place, join(place.dir, 'new/store.db'));
  const restored = good(await start(fresh, ['restore', 'b.db', '--json']).end);
  assert.equal(restored.digest, report.digest);
  const twin = await new Server(fresh).start();
  for (const [id, tenant] of known) {
    const at = `/v1/conversations/${id}`;
    assert.equal((await twin.get(at, { 'x-tidemill-tenant': tenant })).status, 200);
    assert.equal((await twin.get(at, { 'x-tidemill-tenant': tenant === 'a' ? 'b' : 'a' })).status, 404);
    const said = await twin.say(id, SAID, { 'x-tidemill-tenant': tenant });
    assert.equal(said.status, 200, said.text);
  }
  await twin.stop();
  refused(await start(fresh, ['restore', 'b.db']).end, 'restore.not_empty');
  const together = ['--set', 'tenants.isolation=false'];
  refused(await start(fresh, ['restore', 'b.db', '--force', ...together]).end, 'store.isolation');
  const doctor = place.run(['doctor', '--deep', '--json']);
  assert.equal(doctor.code, 0, doctor.out);
  place.remove();
});

test('what is sealed stays sealed, and moves without its key', async () => {
  const general = { enable_encryption: true, encryption_key: randomBytes(32).toString('base64') };
  const place = new Place({ config: { workflow_persistence: { general } } });
  const server = await new Server(place).start();
  const id = await begin(server);
  const sent = { 'idempotency-key': 'a-key' };
  const first = await server.begin('customer_service', 'comprehensive_workflow', {}, sent);
  assert.equal((await server.say(id, 'Where is my zanzibar?')).status, 200);
  good(place.run(['backup', 'b.db', '--json']));
  await server.stop();
  const backup = join(place.dir, 'b.db'), keyless = new Place();
  assert.ok(!readFileSync(backup).includes('zanzibar'));
  const args = ['store', 'copy', '--from', `sqlite:${backup}`, '--to', `sqlite:${join(place.dir, 'c.db')}`];
  assert.equal(good(keyless.run([...args, '--json'])).conversations, 2);
  keyless.remove();
  const twin = await new Server(other(place, join(place.dir, 'c.db'))).start();
  assert.equal((await twin.get(`/v1/conversations/${id}/messages`)).text.includes('zanzibar'), true);
  const again = await twin.begin('customer_service', 'comprehensive_workflow', {}, sent);
  assert.equal(again.json.conversation_id, first.json.conversation_id, 'its start key came along');
  await twin.stop();
  const doctor = () => place.run(['doctor', '--deep']);
  chmodSync(place.config, 0o600);
  assert.equal(doctor().code, 0);
  sqlite(place.database, "UPDATE journal SET body=substr(body,1,60)||iif(substr(body,61,1)=x'00',x'01',x'00')||" +
    `substr(body,62) WHERE conversation='${id}' AND revision=1`);
  assert.match(doctor().out, new RegExp(`^error: records: .*${id}.*\\[seal.forged\\]$`, 'm'));
  place.settings.workflow_persistence.general = {};
  place.save();
  const lost = doctor();
  assert.equal(lost.code, 1, 'without the key');
  assert.match(lost.out, new RegExp(`^error: records: .*${id}.*\\[seal.key_unknown\\]$`, 'm'));
  place.remove();
});

test('files that are no backups', async () => {
  const { place, server, ids } = await filled(30);
  await server.stop();
  good(place.run(['backup', 'b.db', '--json']));
  const empty = other(place, join(place.dir, 'new/store.db'));
  const restore = (file) => start(empty, ['restore', file]).end;
  refused(await restore('nothing.db'), 'store.absent');
  refused(await restore('data'), 'store.location');
  writeFileSync(join(place.dir, 'text.db'), 'This is a text of more than a hundred bytes. '.repeat(30));
  refused(await restore('text.db'), 'store.damaged');
  copyFileSync(join(place.dir, 'b.db'), join(place.dir, 'short.db'));
  truncateSync(join(place.dir, 'short.db'), 20000);
  refused(await restore('short.db'), 'store.damaged');
  // What was altered is as good to the store as what was not: a backup knows what it held.
  const changes = [
    `UPDATE journal SET body=replace(body,'parcel','carpet') WHERE conversation='${ids[3]}'`,
    "UPDATE scripts SET sources=replace(sources,'a','b')", 'UPDATE sessions SET created=created+1',
    'DELETE FROM sessions', 'DELETE FROM scripts', `DELETE FROM heads WHERE id='${ids[4]}'`,
    "UPDATE notes SET text='1'",
  ];
  for (const change of changes) {
    copyFileSync(join(place.dir, 'b.db'), join(place.dir, 'changed.db'));
    sqlite(join(place.dir, 'changed.db'), change);
    refused(await restore('changed.db'), 'backup.damaged');
  }
  copyFileSync(join(place.dir, 'b.db'), join(place.dir, 'holes.db'));
  sqlite(join(place.dir, 'holes.db'),
    `DELETE FROM journal WHERE conversation='${ids[7]}' AND revision=1`);
  const torn = await restore('holes.db');
  refused(torn, 'backup.damaged');
  assert.match(torn.err, new RegExp(ids[7]));
  const holes = await start(empty, ['store', 'copy', '--from', 'sqlite:holes.db', '--json']).end;
  assert.equal(holes.code, 1);
  assert.match(holes.err, new RegExp(`${ids[7]}.*\\[journal\\.damaged\\]`));
  const report = JSON.parse(holes.out);
  assert.deepEqual(report.failed.map((f) => f.code), ['backup.damaged', 'journal.damaged']);
  assert.equal(report.failed[1].conversation_id, ids[7]);
  assert.equal(report.copied, 29);
  const whole = await start(empty, ['restore', 'b.db', '--json']).end;
  assert.equal(good(whole).copied, 1, 'the missing one comes from a good backup');
  refused(place.run(['backup', 'data', '--force']), 'backup.exists');
  mkdirSync(join(place.dir, 'c.db.tenants.replaced', 'folder'), { recursive: true });
  refused(place.run(['backup', 'c.db']), 'backup.io');
  place.remove();
});

test('a backup that was served is a store like any other', async () => {
  const { place, server, ids } = await filled(2);
  await server.stop();
  good(place.run(['backup', 'b.db', '--json']));
  const twin = other(place, join(place.dir, 'b.db'));
  const served = await new Server(twin).start();
  assert.equal((await served.say(ids[0], 'Thank you.')).status, 200);
  await served.stop();
  const empty = other(place, join(place.dir, 'new/store.db'));
  assert.equal(good(await start(empty, ['restore', 'b.db', '--json']).end).rows, 5);
  place.remove();
});

test('a source that is not there is not made', async () => {
  const place = new Place({ config: { tenants: { isolation: true } } });
  const nowhere = ['redis://127.0.0.1:1'].some((url) => place.run(
    ['store', 'copy', '--from', url, '--to', 'sqlite:x.db']).err.includes('[store.unknown]'))
    ? [] : [onRedis(), onPostgres()];
  writeFileSync(join(place.dir, 'empty.db'), '');
  mkdirSync(join(place.dir, 'empty'));
  for (const from of ['sqlite:empty.db', 'file:empty', ...nowhere]) {
    for (let i = 0; i < 2; i++)
      refused(place.run(['store', 'copy', '--from', from, '--to', 'sqlite:x.db']), 'store.absent');
    assert.ok(!existsSync(join(place.dir, 'x.db')), from);
  }
  const server = await new Server(place).start();
  for (const tenant of ['a', 'b'])
    await server.begin('customer_service', 'comprehensive_workflow', {}, { 'x-tidemill-tenant': tenant });
  await server.stop();
  good(place.run(['backup', 'b.db', '--json']));
  rmSync(join(place.dir, 'b.db.tenants/a.db'));
  const fresh = other(place, join(place.dir, 'new/store.db'));
  refused(await start(fresh, ['restore', 'b.db']).end, 'backup.damaged');
  rmSync(`${place.database}.tenants/a.db`);
  const r = place.run(['backup', 'c.db', '--json']);
  refused({ ...r, err: r.err.split('\n').slice(0, 1).join('\n') + '\n' }, 'copy.tenant_missing');
  assert.equal(JSON.parse(r.out).conversations, 1, 'that of the other tenant');
  assert.ok(!existsSync(`${place.database}.tenants/a.db`));
  const doctor = place.run(['doctor', '--deep']);
  assert.equal(doctor.code, 1);
  assert.match(doctor.out, /^error: store: the store of tenant a is missing/m);
  place.remove();
});

// One bit of a file.
const flip = (file, at) => {
  const fd = openSync(file, 'r+'), byte = Buffer.alloc(1);
  readSync(fd, byte, 0, 1, at);
  byte[0] ^= 0x20;
  writeSync(fd, byte, 0, 1, at);
  closeSync(fd);
};
// What failed, by the code that it is reported with; the others were copied.
const partly = (r, codes) => {
  assert.equal(r.code, 1, r.err + r.out);
  const report = JSON.parse(r.out);
  assert.deepEqual(report.failed.map((f) => f.code), codes);
  for (const f of report.failed) assert.ok(r.err.includes(`${f.message} [${f.code}]\n`), r.err);
  return report;
};

test('a log that cannot be read is named, and no good backup gives way to less', async () => {
  const place = new Place(), ids = [];
  place.use_files();
  let server = await new Server(place).start();
  for (let i = 0; i < 3; i++) {
    ids.push(await begin(server));
    assert.equal((await server.say(ids[i], SAID)).status, 200);
  }
  await server.stop();
  const whole = good(place.run(['backup', 'b.db', '--json']));
  const kept = readFileSync(join(place.dir, 'b.db'));
  const states = join(place.dir, 'data/states');
  const log = join(states, 'conversations', ids[1].slice(-3), `${ids[1]}.log`);
  flip(log, statSync(log).size - 60);
  for (const end of ['', '-wal', '-shm']) rmSync(join(states, `index.db${end}`), { force: true });

  const copy = partly(place.run(['store', 'copy', '--to', 'sqlite:c.db', '--json']),
    ['journal.damaged']);
  assert.deepEqual([copy.conversations, copy.copied, copy.failures], [3, 2, 1]);
  assert.equal(copy.failed[0].conversation_id, ids[1]);
  const less = () => partly(place.run(['backup', 'b.db', '--force', '--json']),
    ['journal.damaged', 'backup.incomplete']);
  assert.match(less().to, /b\.db\.partial$/);
  assert.equal(less().failures, 1, 'it goes on with the part that is there');
  assert.ok(readFileSync(join(place.dir, 'b.db')).equals(kept));
  assert.deepEqual(readdirSync(place.dir).filter((f) => /^b\.db(?!.*\.lock$)/.test(f)),
    ['b.db', 'b.db.partial']);
  const fresh = partly(place.run(['backup', 'd.db', '--json']), ['journal.damaged']);
  assert.match(fresh.to, /d\.db$/);
  const named = place.run(['doctor']);
  assert.match(named.out, new RegExp(`^error: store: .*${ids[1]} is damaged`, 'm'));

  server = await new Server(place).start();
  assert.match(server.errors, new RegExp(ids[1]), 'it is said in the log');
  const listed = (await server.get('/v1/conversations')).json.items.map((c) => c.conversation_id);
  assert.deepEqual(listed, [ids[2], ids[0]]);
  const read = await server.get(`/v1/conversations/${ids[1]}`);
  assert.deepEqual([read.status, read.json.code], [500, 'journal.damaged']);
  assert.equal((await server.say(ids[2], 'Thank you.')).status, 200);
  await server.stop();

  refused(place.run(['restore', 'b.db']), 'restore.not_empty');
  assert.equal(good(place.run(['restore', 'd.db', '--force', '--json'])).copied, 1, 'the one that went on');
  partly(place.run(['restore', 'b.db', '--json']), ['journal.damaged']);
  assert.equal(good(place.run(['restore', 'b.db', '--force', '--json'])).copied, 1);
  assert.equal(good(place.run(['backup', 'b.db', '--force', '--json'])).digest, whole.digest);
  assert.deepEqual(readdirSync(place.dir).filter((f) => f.startsWith('b.db')), ['b.db']);
  place.remove();
});

// How a head is damaged where `url` is.
const harm = (place, url, id) => {
  const [scheme, rest] = [url.split(':')[0], url.slice(url.indexOf(':') + 1)];
  const change = `UPDATE heads SET status=99 WHERE id='${id}'`;
  if (scheme === 'sqlite') return sqlite(join(place.dir, rest), change);
  const { hostname, port, pathname } = new URL(url);
  const [tool, ...args] = scheme === 'redis'
    ? ['redis-cli', '-e', '-h', hostname, '-p', port, '-n', pathname.slice(1),
      'HSET', `tidemill:h:{${id}}`, 'status', 'nonsense']
    : ['psql', url, '-v', 'ON_ERROR_STOP=1', '-qc', `SET search_path=tidemill; ${change}`];
  const r = spawnSync(tool, args, { encoding: 'utf8' });
  assert.equal(r.status, 0, r.stderr);
};

test('a head that cannot be read is named, on either side', async () => {
  const { place, server, ids } = await filled(3);
  await server.stop();
  for (const url of ['sqlite:side.db', onRedis(), onPostgres('head_')]) {
    const copy = (...args) => place.run(['store', 'copy', '--json', ...args]);
    const whole = good(copy('--to', url));
    harm(place, url, ids[1]);
    const report = partly(copy('--from', url, '--to', `sqlite:of-${url.split(':')[0]}.db`),
      ['journal.damaged']);
    assert.deepEqual([report.failures, report.conversations, report.copied], [1, 3, 2], url);
    assert.equal(report.failed[0].conversation_id, ids[1]);
    partly(copy('--to', url), ['journal.damaged']); // it is not replaced unasked
    const again = good(copy('--to', url, '--force'));
    assert.deepEqual([again.copied, again.removed], [1, 1], url);
    assert.equal(again.digest, whole.digest, url);
    assert.equal(good(copy('--from', url, '--to', `sqlite:whole-${url.split(':')[0]}.db`)).digest,
      whole.digest, url);
  }
  place.remove();
});

test('one damaged store of a tenant stops nobody else', async () => {
  const place = new Place({ config: { tenants: { isolation: true } } });
  const server = await new Server(place).start();
  const ids = {};
  for (const tenant of ['a', 'b', 'c']) {
    const r = await server.begin('customer_service', 'comprehensive_workflow', {},
      { 'x-tidemill-tenant': tenant });
    ids[tenant] = r.json.conversation_id;
  }
  await server.stop();
  good(place.run(['backup', 'b.db', '--json']));
  const kept = () => [join(place.dir, 'b.db'), ...['a', 'b', 'c'].map((t) =>
    join(place.dir, 'b.db.tenants', `${t}.db`))].map((f) => readFileSync(f).toString('hex'));
  const before = kept();
  const own = (tenant) => `${place.database}.tenants/${tenant}.db`;
  writeFileSync(own('a'), 'This is a text of more than a hundred bytes. '.repeat(30));
  sqlite(own('b'), 'ALTER TABLE sessions RENAME COLUMN metadata TO word'); // it opens, and cannot be read

  const both = ['copy.tenant_unreadable', 'copy.tenant_unreadable'];
  const check = (report) => {
    assert.deepEqual([report.failures, report.conversations], [2, 1]);
    assert.match(report.failed[0].message, /store of tenant a .*a\.db/);
    assert.match(report.failed[1].message, /store of tenant b /);
  };
  check(partly(place.run(['store', 'copy', '--to', 'sqlite:t.db', '--json']), both));
  check(partly(place.run(['backup', 'b.db', '--force', '--json']), [...both, 'backup.incomplete']));
  assert.deepEqual(kept(), before);
  check(partly(place.run(['backup', 'd.db', '--json']), both));
  const fresh = other(place, join(place.dir, 'new/store.db'));
  assert.equal(good(await start(fresh, ['restore', 'd.db', '--json']).end).copied, 1);
  const twin = await new Server(fresh).start();
  for (const [tenant, id] of Object.entries(ids)) {
    const r = await twin.get(`/v1/conversations/${id}`, { 'x-tidemill-tenant': tenant });
    assert.equal(r.status, tenant === 'c' ? 200 : 404, r.text);
  }
  await twin.stop();
  place.remove();
});

test('one damaged store of a tenant in the target stops nobody else either', async () => {
  const place = new Place({ config: { tenants: { isolation: true } } });
  const server = await new Server(place).start();
  const ids = {};
  for (const tenant of ['a', 'b', 'c']) {
    const r = await server.begin('customer_service', 'comprehensive_workflow', {},
      { 'x-tidemill-tenant': tenant });
    ids[tenant] = r.json.conversation_id;
  }
  await server.stop();
  good(place.run(['backup', 'b.db', '--json']));
  const own = (tenant) => `${place.database}.tenants/${tenant}.db`;
  const noise = 'This is a text of more than a hundred bytes. '.repeat(30);
  for (const tail of ['-wal', '-shm']) rmSync(own('a') + tail, { force: true });
  writeFileSync(own('a'), noise);
  sqlite(own('b'), 'UPDATE heads SET status=99');
  sqlite(own('c'), 'DELETE FROM heads; DELETE FROM journal');

  const plain = place.run(['restore', 'b.db', '--json']);
  refused(plain, 'store.damaged');
  assert.match(plain.err, /a\.db/);
  assert.equal(sqlite(own('c'), 'SELECT count(*) FROM heads'), '0'); // nothing was written
  const report = partly(place.run(['restore', 'b.db', '--force', '--json']),
    ['copy.tenant_unreadable']);
  assert.match(report.failed[0].message, /tenant a in the target .*a\.db.*[Mm]ove it away/);
  assert.deepEqual([report.failures, report.conversations], [1, 2]);
  assert.equal(readFileSync(own('a'), 'utf8'), noise); // whoever wants to look at it still can
  rmSync(own('a'));
  const rest = good(place.run(['restore', 'b.db', '--force', '--json']));
  assert.deepEqual([rest.failures, rest.conversations], [0, 3]);
  const again = await new Server(place).start();
  for (const [tenant, id] of Object.entries(ids)) {
    const r = await again.get(`/v1/conversations/${id}`, { 'x-tidemill-tenant': tenant });
    assert.equal(r.status, 200, r.text);
  }
  await again.stop();
  place.remove();
});

test('the doctor makes nothing and changes nothing', async () => {
  const { place, server } = await filled(2);
  await server.stop();
  const kept = place.settings.workflow_persistence;
  const look = (persistence) => {
    place.settings.workflow_persistence = persistence;
    place.save();
    chmodSync(place.config, 0o600);
    return place.run(['doctor', '--deep']);
  };
  sqlite(place.database, 'PRAGMA user_version=1');
  const before = readFileSync(place.database);
  const older = look(kept);
  assert.equal(older.code, 0, older.out);
  assert.match(older.out, /^warning: store: .*older program.*keep a copy.*\[store\.older\]$/m);
  assert.ok(readFileSync(place.database).equals(before));
  sqlite(place.database, 'PRAGMA user_version=2');
  const tables = { conversations: 'mine' };
  const fine = readFileSync(place.database);
  const named = look({ ...kept, sqlite: { ...kept.sqlite, journal_mode: 'DELETE', tables } });
  assert.equal(named.code, 0, named.out);
  assert.ok(readFileSync(place.database).equals(fine));
  mkdirSync(join(place.dir, 'empty'));
  const absent = [{ backend: 'file', file: { storage_directory: join(place.dir, 'empty') } }];
  if (!place.run(['store', 'copy', '--from', 'redis://127.0.0.1:1']).err.includes('[store.unknown]')) {
    const [host, port] = process.env.TIDEMILL_TEST_REDIS.split(':');
    absent.push({ backend: 'redis', redis: { host, port: Number(port), db: 999 } });
    absent.push({ backend: 'postgres', postgres: { url: onPostgres('doctor') } });
  }
  for (const persistence of absent) {
    for (let i = 0; i < 2; i++) {
      const r = look(persistence);
      assert.match(r.out, /^info: store: there is none at .* yet: `tidemill serve` makes it$/m);
    }
    const served = await new Server(place).start();
    await served.stop();
    const well = look(persistence);
    assert.equal(well.code, 0, well.out);
    assert.doesNotMatch(well.out, /there is none/);
  }
  place.remove();
});

test('a target without room', async () => {
  const { place, server } = await filled(60);
  await server.stop();
  const full = await start(place, ['backup', 'b.db'], { prefix: 'ulimit -f 400; ' }).end;
  refused(full, 'store.full');
  assert.ok(!existsSync(join(place.dir, 'b.db')), 'no half of a backup has its name');
  assert.equal(good(place.run(['backup', 'b.db', '--json'])).conversations, 60);
  assert.deepEqual(readdirSync(place.dir).filter((f) => f.startsWith('b.db')), ['b.db']);
  place.remove();
});

test('URLs that are no stores, and passwords that nobody sees', () => {
  const place = new Place();
  const wrong = ['', 'nonsense', 'sqlite:', 'sqlite://x.db', 'file:', 'file:///x', 'memory:', 'redis://',
    'redis://user:secret@h', 'redis://:secret@h:70000', 'redis://:secret@h:6379/x', 'redis://h/1/2',
    'redis://:sec%zzret@h', 'redis://:secret%00@h', 'redis://[::1', 'rediss://:secret@h', 'postgres://',
    'postgress://u:secret@h/d', 'mysql://u:secret@h', 'redis://:secret@h\n:1', 'sqlite'];
  for (const url of wrong) {
    const r = place.run(['store', 'copy', '--to', url]);
    assert.equal(r.code, 2, `${url}: ${r.err}`);
    if (url !== '') assert.match(r.err, /\[store\.url\]\n$/);
    assert.ok(!(r.out + r.err).includes('sec'), r.err);
  }
  for (const url of ['redis://:secret@127.0.0.1:1/3', 'postgres://u:secret@127.0.0.1:1/d',
    'postgresql://u:secret@127.0.0.1:1/d?password=secret']) {
    const r = place.run(['store', 'copy', '--to', url, '--set',
      'workflow_persistence.general.timeout=0.2'], { timeout: 60000 });
    assert.equal(r.code, 1, `${url}: ${r.err}`);
    assert.ok(!(r.out + r.err).includes('secret'), r.err);
  }
  for (const url of ['redis://:qq/zz@h/3', 'redis://:qq#zz@h/3', 'redis://:qq?zz@h', 'redis://:qq@zz@h',
    'postgres://u:qq#zz@h/d', 'postgres://u:qq?zz@h/d', 'postgres://u:qq#zz@h', 'postgres://u:qq/zz@h/d',
    'postgres://h/d?user=u:x@y&password=qq@zz']) {
    const r = place.run(['store', 'copy', '--from', url, '--to', url]);
    refused(r, 'store.same');
    assert.ok(!/qq|zz/.test(r.out + r.err), r.err);
  }
  const words = place.run(['store', 'copy', '--from', 'config', '--to', 'config', '--set',
    'workflow_persistence.backend=postgres', '--set',
    'workflow_persistence.postgres.url=host=h user=u password=qq://zz']);
  refused(words, 'store.same');
  assert.ok(!/qq|zz/.test(words.out + words.err), words.err);
  refused(place.run(['store', 'copy', '--from', 'sqlite:nothing.db']), 'store.absent');
  assert.equal(place.run(['store', 'copy']).code, 2);
  assert.equal(place.run(['backup']).code, 2);
  const memory = place.run(['backup', 'b.db', '--set', 'workflow_persistence.backend=memory']);
  refused(memory, 'store.url', 2);
  place.remove();
});

test('what a person sees', async () => {
  const { place, server } = await filled(2);
  await server.stop();
  const r = place.run(['backup', 'b.db']);
  assert.equal(r.code, 0, r.err);
  assert.equal(r.err, '', 'no bar without a terminal');
  assert.match(r.out, /^conversations 2, of those written 2 \(4 rows\)/m);
  const bar = spawnSync('script', ['-qec', `${program} store copy --to sqlite:c.db --config ${
    place.config}`, '/dev/null'], { cwd: place.dir, encoding: 'utf8', input: '' });
  const drawn = bar.stdout.split('\r').filter((line) => line.startsWith('['));
  assert.ok(drawn.length > 0, bar.stdout);
  for (const line of drawn) assert.ok(line.length < 80, line);
  place.remove();
});

test('the doctor', async () => {
  const { place, server } = await filled(3);
  const look = (args = [], options) => {
    const r = place.run(['doctor', '--json', ...args], options);
    return { ...r, ...JSON.parse(r.out) };
  };
  const well = look(['--deep']); // while the server runs
  assert.equal(well.code, 0, well.out);
  assert.equal(well.errors, 0);
  await server.stop();
  assert.equal(look().code, 0);
  const says = (r, level, area, pattern) => assert.ok(
    r.items.some((i) => i.level === level && i.area === area && pattern.test(i.text)), r.out);
  const config = readFileSync(place.config);
  writeFileSync(place.config, JSON.stringify({ ...place.settings, server: { lisen: 'x' } }));
  const wrong = look();
  assert.equal(wrong.code, 1);
  says(wrong, 'error', 'configuration', /listen/);
  writeFileSync(place.config, config);
  says(look(['--set', 'server.listen=0.0.0.0:8700']), 'warning', 'address', /whoever reaches it/);
  const secret = structuredClone(place.settings);
  secret.workflow_persistence.redis = { password: 'secret' };
  writeFileSync(place.config, JSON.stringify(secret), { mode: 0o644 });
  const open = look();
  assert.equal(open.code, 1);
  says(open, 'error', 'secrets', /everybody may open it .*chmod 600/);
  assert.ok(!open.out.includes('"secret"'));
  writeFileSync(place.config, config);
  const key = join(place.dir, 'password'), set = { env: {
    AMBIVO_AGENTS_WORKFLOW_PERSISTENCE_REDIS_PASSWORD_FILE: key } };
  writeFileSync(key, 'secret\n', { mode: 0o640 });
  says(look([], set), 'warning', 'secrets', /password holds a secret, and its group may open it/);
  chmodSync(key, 0o600);
  assert.ok(!look([], set).items.some((i) => i.area === 'secrets'));
  writeFileSync(join(place.dir, 'x.env'),
    'AMBIVO_AGENTS_WORKFLOW_PERSISTENCE_REDIS_PASSWORD=secret\n', { mode: 0o644 });
  says(look(['--env-file', 'x.env']), 'error', 'secrets', /x\.env holds secrets/);
  const key32 = randomBytes(32).toString('base64');
  const keyed = structuredClone(place.settings), folder = join(place.dir, 'keys');
  mkdirSync(folder, { mode: 0o755 });
  keyed.workflow_persistence.general = { enable_encryption: true, accept_plaintext: true,
    encryption_key: key32, tenant_keys: folder };
  writeFileSync(place.config, JSON.stringify(keyed));
  const sealed = look();
  says(sealed, 'error', 'secrets', /everybody may open it/);
  says(sealed, 'error', 'keys', /keys of tenants.*chmod 700/);
  says(sealed, 'warning', 'keys', /accept_plaintext is on/);
  assert.ok(!sealed.out.includes(key32));
  delete keyed.workflow_persistence.general.encryption_key;
  delete keyed.workflow_persistence.general.tenant_keys;
  writeFileSync(place.config, JSON.stringify(keyed));
  says(look(), 'error', 'configuration', /key/);
  writeFileSync(place.config, config);
  place.script('broken', 'return {');
  const broken = look();
  assert.equal(broken.code, 1);
  says(broken, 'error', 'scripts', /broken\/init\.lua:/);
  place.script('broken', readFileSync(join(process.cwd(), 'scripts/customer_service/init.lua'), 'utf8')
    .replace('name = "customer_service"', 'name = "broken"'));
  sqlite(place.database, `UPDATE heads SET created=${Date.now() + 3600000}`);
  says(look(), 'error', 'clock', /in the future/);
  writeFileSync(place.database, 'This is a text of more than a hundred bytes. '.repeat(30));
  const damaged = look();
  assert.equal(damaged.code, 1);
  says(damaged, 'error', 'store', /\[store\.damaged\]/);
  const absent = look(['--set', `workflow_persistence.sqlite.database_path=${join(place.dir, 'no.db')}`]);
  says(absent, 'info', 'store', /there is none/);
  const few = spawnSync('sh', ['-c', `ulimit -n 100; exec ${program} doctor --json --config ${
    place.config}`], { cwd: place.dir, encoding: 'utf8' });
  assert.match(few.stdout, /100 files may be open/);
  const text = place.run(['doctor']);
  assert.match(text.out, /^error: store: /m);
  place.remove();
});
