// A disk that is full, fails, tears, may not be written, or has no descriptors left, under a real host:
// who needs a commit gets 503 with the reason, reads go on, nothing acknowledged is lost, nothing
// happens twice, and when the fault is over the host goes on by itself. disk_file.test.mjs is the same
// on logs.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Disk } from '../shim/disk.mjs';
import { crashSystem } from './crash_test_system.mjs';
import { Outside, Place, Server, wait } from './host.mjs';
import { broken_logs } from './logs.mjs';

const CLIENTS = 4;
const FILE = process.env.TEST_BACKEND === 'file';
const WALS = FILE ? [true] : [true, false]; // a file store has a redo log always

let outside;
before(async () => { outside = await new Outside().start(); });
after(() => outside?.stop());

class World {
  constructor({ wal = true } = {}) {
    this.place = new Place({ shipped: false });
    this.place.script('crashy', crashSystem(outside.url));
    this.disk = new Disk(join(this.place.dir, 'disk'), join(this.place.dir, 'state'));
    this.file = join(this.disk.root, 'data/workflow.db');
    this.logs = [];
    if (FILE) {
      this.place.use_files(join(this.disk.root, 'data'));
      return;
    }
    this.place.settings.workflow_persistence.sqlite = { database_path: this.file,
      enable_wal: wal, journal_mode: wal ? 'WAL' : 'DELETE' };
    writeFileSync(this.place.config, JSON.stringify(this.place.settings));
  }
  async start() {
    this.server = await new Server(this.place).start([], this.disk.env);
    return this;
  }
  // Must not start; what it says.
  async refused() {
    const server = new Server(this.place);
    await assert.rejects(server.start([], this.disk.env));
    assert.equal((await server.ended).code, 1);
    return server.errors;
  }
  async begin() {
    const i = this.logs.length;
    const headers = { 'idempotency-key': `start-${i}` };
    const flow = i % 2 === 0 ? 'pure' : 'loop';
    const r = await this.server.begin('crashy', flow, {}, headers);
    assert.equal(r.status, 201, r.text);
    this.logs.push({ i, flow, headers, begun: r.text, id: r.json.conversation_id, answers: [] });
  }
  say(log, n = log.answers.length + 1) {
    return this.server.say(log.id, `item ${n}`, { 'idempotency-key': `message-${log.i}-${n}` });
  }
  async turn(log) {
    const r = await this.say(log);
    assert.equal(r.status, 200, r.text);
    log.answers.push(r.text);
  }
  turns() { return Promise.all(this.logs.map((log) => this.turn(log))); }
  async read(log) {
    const r = await this.server.get(`/v1/conversations/${log.id}`);
    assert.equal(r.status, 200, r.text);
    assert.equal(r.json.state.count, log.answers.length);
  }
  // Every conversation gets a message, somebody begins another: all hear why not.
  async stuck(code, { reads = true } = {}) {
    const all = await Promise.all([...this.logs.map((log) => this.say(log)),
      this.server.begin('crashy', 'pure', {}, { 'idempotency-key': 'stuck' })]);
    for (const r of all) must_refuse(r, code);
    const nobody = await this.server.raw('DELETE', '/v1/sessions/nobody');
    assert.ok([404, 503].includes(nobody.status), nobody.text); // says nothing of what can be written
    assert.equal((await this.server.get('/readyz')).json.code, 'host.not_ready');
    assert.equal((await this.server.get('/livez')).status, 200);
    if (reads) await Promise.all(this.logs.map((log) => this.read(log)));
  }
  // Nobody writes to a host that is not ready: it finds out by itself, whatever else goes on.
  async ready() {
    let r;
    for (let i = 0; i < 100 && r?.status !== 200; i++) {
      if (r !== undefined) await wait(20);
      await this.server.raw('DELETE', '/v1/sessions/nobody');
      r = await this.server.get('/readyz');
    }
    assert.equal(r.status, 200, `${r.text} ${this.server.errors}`);
  }
  // All again after a power cut: the same answers, each turn once.
  async check() {
    await this.server.kill();
    this.disk.drop();
    this.server = await new Server(this.place).start();
    for (const log of this.logs) {
      await this.read(log);
      for (const [n, text] of log.answers.slice(-8).entries())
        assert.equal((await this.say(log, Math.max(0, log.answers.length - 8) + n + 1)).text, text);
      await this.turn(log);
      await this.read(log);
    }
    await this.server.stop();
    if (FILE) assert.deepEqual(broken_logs(join(this.disk.root, 'data')), []);
    else assert.equal(this.sql('PRAGMA integrity_check'), 'ok');
    this.place.remove();
  }
  sql(text) {
    const r = spawnSync('sqlite3', [this.file, text], { encoding: 'utf8' });
    assert.equal(r.status, 0, r.stderr);
    return r.stdout.trim();
  }
}

function must_refuse(r, code) {
  assert.equal(r.status, 503, r.text);
  assert.equal(r.type, 'application/problem+json');
  assert.equal(r.json.code, code, r.text);
  assert.ok(r.json.retry_after >= 1, r.text);
  assert.equal(Number(r.headers['retry-after']), r.json.retry_after);
  assert.match(r.json.detail, /try again/);
}

const talking = async (options) => {
  const w = await new World(options).start();
  for (let i = 0; i < CLIENTS; i++) await w.begin();
  await w.turns();
  return w;
};

// A fault that lasts, with and without a write-ahead log.
const lasting = (name, code, ops, error, options) => {
  for (const wal of WALS)
    test(`${name}${wal ? '' : ', without a write-ahead log'}`, async () => {
      const w = await talking({ wal });
      w.disk.fault(ops, error, options);
      await w.stuck(code);
      await w.stuck(code);
      w.disk.mend();
      await w.ready();
      await w.turns(); // the same keys: each turn happens once
      await w.check();
    });
};

lasting('a full disk', 'store.full', ['write', 'create'], 'ENOSPC');
lasting('a full disk with room for half a write', 'store.full', ['write'], 'ENOSPC',
  { effect: 'torn' });
lasting('a disk that cannot write', 'store.io', ['write'], 'EIO');
lasting('a disk that tears what it cannot write', 'store.io', ['write'], 'EIO',
  { effect: 'torn' });
lasting('a disk that cannot sync', 'store.io', ['sync'], 'EIO');
lasting('a file system that became read-only', 'store.read_only', ['change', 'open'], 'EROFS');

// Each call of some turns fails once: either a turn is refused, and its repeat is not, or nobody
// notices.
const passing = (name, op, error, options) => {
  for (const wal of WALS)
    test(`${name}${wal ? '' : ', without a write-ahead log'}`, async () => {
      const w = await talking({ wal });
      let refused = 0;
      for (let after = 0; after < 12; after++) {
        w.disk.fault([op], error, { ...options, count: 1, after });
        const all = await Promise.all(w.logs.map((log) => w.say(log)));
        w.disk.mend();
        for (const [i, r] of all.entries()) {
          if (r.status === 200) w.logs[i].answers.push(r.text);
          else must_refuse(r, 'store.io');
          refused += r.status === 200 ? 0 : 1;
        }
        await w.ready();
        await Promise.all(all.map((r, i) => (r.status === 200 ? null : w.turn(w.logs[i]))));
        await Promise.all(w.logs.map((log) => w.read(log)));
      }
      assert.ok(options?.effect === 'short' ? refused === 0 : refused > 0, `${refused} refused`);
      await w.check();
    });
};

passing('a sync that fails once', 'sync', 'EIO');
passing('a write that fails once', 'write', 'EIO');
passing('a write that is torn once', 'write', 'EIO', { effect: 'torn' });
passing('a write that is done by half', 'write', 'EIO', { effect: 'short' });

// A name is durable with its folder: of the log, before anybody builds on it; of a rollback journal
// that is gone, before anybody hears of what it would take back.
for (const wal of WALS) {
  const name = wal ? '' : ', without a write-ahead log';
  test(`a folder that cannot be synced when the host starts${name}`, async () => {
    for (let after = 0, met = true; met; after++) {
      const w = new World({ wal });
      w.disk.fault(['sync'], 'EIO', { after, suffix: 'data' });
      const started = await w.start().catch((e) => assert.match(e.message, /store\.io/));
      met = w.disk.met() > 0;
      if (started === undefined) {
        w.disk.mend();
        await w.start();
      }
      await w.begin().catch(() => null); // either refused, or there after a power cut
      await w.check();
    }
  });

  if (!FILE) test(`a folder that cannot be synced for a moment${name}`, async () => {
    for (let after = 0; after < 3; after++) {
      const w = await talking({ wal });
      const [log] = w.logs;
      w.disk.fault(['sync'], 'EIO', { after, count: 2, suffix: 'data' });
      for (let r; r?.status !== 200;) { // repeats at once, before the host has tried by itself
        r = await w.say(log);
        if (r.status === 200) log.answers.push(r.text);
        else must_refuse(r, 'store.io');
      }
      await w.check();
    }
  });
}

test('a disk that cannot read', async () => {
  const w = await talking();
  await w.server.stop();
  await w.start(); // knows no conversation yet
  w.disk.fault(['read', 'look'], 'EIO');
  for (const log of w.logs) {
    const r = await w.server.get(`/v1/conversations/${log.id}/messages`);
    must_refuse(r, 'store.io');
    must_refuse(await w.say(log), 'store.io');
  }
  assert.equal((await w.server.get('/readyz')).status, 503);
  w.disk.mend();
  await w.ready();
  await w.turns();
  await w.check();
});

test('a start on a full disk makes nothing or all', async () => {
  const w = new World();
  for (let after = 0, done = false; !done; after++) {
    w.disk.fault(['write', 'create', 'mkdir'], 'ENOSPC', { after });
    try {
      await w.start();
      done = true;
    } catch (e) {
      assert.match(e.message, /store\.full/);
      assert.ok(FILE || !existsSync(w.file) || after > 20, 'no half store');
    }
  }
  await w.begin().catch(() => w.logs.pop());
  w.disk.mend();
  await w.ready();
  await w.begin();
  await w.turns();
  await w.check();
});

test('a store that is there, on a full disk', async () => {
  const w = await talking();
  await w.server.stop();
  w.disk.fault(['write', 'create'], 'ENOSPC');
  assert.match(await w.refused(), /store\.full/);
  w.disk.mend();
  await w.start();
  await w.turns();
  await w.server.kill(); // leaves a log, whose bytes are on the disk already
  w.disk.fault(['write', 'create'], 'ENOSPC');
  await w.start().then((it) => it.stuck('store.full'), (e) => assert.match(e.message, /store\.full/));
  w.disk.mend();
  await w.server.kill();
  await w.start();
  await w.turns();
  await w.check();
});

test('a read-only store is refused', async () => {
  const w = await talking();
  await w.server.stop();
  const before = readdirSync(join(w.disk.root, 'data'));
  w.disk.fault(['open', 'change'], 'EROFS');
  assert.match(await w.refused(), /make the file and its folder writable.*store\.read_only/s);
  w.disk.fault(['open'], 'EACCES', { suffix: '.db' });
  assert.match(await w.refused(), /make the file and its folder writable.*store\.read_only/s);
  assert.deepEqual(readdirSync(join(w.disk.root, 'data')), before);
  w.disk.mend();
  await w.start();
  await w.check();
});

// What is acknowledged after this would be in a file without a name.
for (const name of FILE ? ['index.db', '0.redo', '1.redo'] : ['workflow.db', 'workflow.db-wal'])
  test(`${name} is moved away and put back, then replaced`, async () => {
    const w = await talking();
    const file = join(w.disk.root, 'data', name);
    renameSync(file, `${file}.away`);
    await w.stuck('store.moved');
    writeFileSync(file, ''); // another one in its place
    await w.stuck('store.moved');
    rmSync(file);
    renameSync(`${file}.away`, file);
    await w.ready();
    await w.turns();
    await w.check();
  });

test('the folder of the store is moved away and put back', async () => {
  const w = await talking();
  const folder = join(w.disk.root, 'data');
  renameSync(folder, `${folder}.away`);
  await w.stuck('store.moved', { reads: !FILE });
  if (FILE) for (const log of w.logs)
    must_refuse(await w.server.get(`/v1/conversations/${log.id}`), 'store.moved');
  assert.doesNotMatch(w.server.errors, /damaged/);
  renameSync(`${folder}.away`, folder);
  await w.ready();
  await w.turns();
  await w.check();
});

if (!FILE) test('a log without its file is refused, and good again with it', async () => {
  const w = await talking();
  await w.server.kill();
  renameSync(w.file, `${w.file}.away`);
  assert.match(await w.refused(), /store\.damaged/);
  renameSync(`${w.file}.away`, w.file);
  await w.start();
  await w.check();
});

// SQLite takes a folder that it cannot open for one that needs no sync.
if (!FILE) test('no descriptor left to sync the folder', async () => {
  for (let after = 0; after < 3; after++) {
    const w = await talking({ wal: false });
    const [log] = w.logs;
    w.disk.fault(['look'], 'EMFILE', { after, count: 2, suffix: 'data' });
    for (let r; r?.status !== 200;) {
      r = await w.say(log);
      if (r.status === 200) log.answers.push(r.text);
      else must_refuse(r, 'store.descriptors');
    }
    await w.check();
  }
});

test('no descriptors left for the store', async () => {
  const w = await talking({ wal: false }); // makes a journal for each commit, or opens a log
  w.disk.fault(['create', 'open', 'look'], 'EMFILE');
  await w.stuck('store.descriptors', { reads: !FILE });
  w.disk.mend();
  await w.ready();
  await w.turns();
  await w.check();
});

const processor_ms = (pid) => { // user and system, in ticks of 10 ms
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10;
};

test('no descriptors left at all', async () => {
  const w = await talking();
  const pid = w.server.process.pid;
  const limit = (n) => assert.equal(spawnSync('prlimit',
    [`--pid=${pid}`, `--nofile=${n}:`]).status, 0);
  const before = processor_ms(pid);
  w.server.agent.destroy(); // every connection from here on is a new one
  limit(3); // those that are open stay
  const waiting = Promise.all(w.logs.map((log) => w.say(log).catch((e) => e)));
  await wait(1500);
  const spent = processor_ms(pid) - before;
  assert.ok(spent < 500, `spins: ${spent} ms of 1500`);
  limit(1024);
  for (const [i, r] of (await waiting).entries()) {
    if (r.status === 200) w.logs[i].answers.push(r.text);
    else if (r.status !== undefined) assert.equal(r.status, 503, r.text);
  }
  await w.ready();
  await w.turns();
  await w.check();
});
