// The power fails at any moment of a real host's life: while it makes its store, starts, runs turns,
// copies its log, stops. What was not synced is lost, in whole or in part. Every answer that a client
// got stands, its repeat gets it again, and the conversations go on. POWER_CUTS: how many moments, or
// `all`, which takes an hour; POWER_SEED: which ones. power_file.test.mjs is the same on logs.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { Disk } from '../shim/disk.mjs';
import { crashSystem } from './crash_test_system.mjs';
import { Outside, Place, Server, program } from './host.mjs';
import { broken_logs } from './logs.mjs';

const NIGHTLY = process.env.TIDEMILL_NIGHTLY === '1';
const CUTS = process.env.POWER_CUTS ?? (NIGHTLY ? '400' : '60');
const SEED = Number(process.env.POWER_SEED ?? 1);
const CLIENTS = 5, TURNS = 6;
const FILE = process.env.TEST_BACKEND === 'file';
const small_log = join(dirname(program), 'tests/tidemill_small_log');

let outside, place, disk;

before(async () => {
  outside = await new Outside().start();
  place = new Place({ shipped: false });
  place.script('crashy', crashSystem(outside.url));
  disk = new Disk(join(place.dir, 'disk'), join(place.dir, 'state'));
  configure(true);
});
after(async () => {
  await outside?.stop();
  place?.remove();
});

const configure = (wal) => {
  if (FILE) return place.use_files(join(disk.root, 'data'));
  place.settings.workflow_persistence.sqlite = { enable_wal: wal,
    journal_mode: wal ? 'WAL' : 'DELETE', database_path: join(disk.root, 'data/workflow.db') };
  return writeFileSync(place.config, JSON.stringify(place.settings));
};
const both = (i) => (i % 2 === 0 ? 'pure' : 'loop');
const pure = () => 'pure';
const item_of = (i, n) => `item ${i}.${n} ${'x'.repeat(n * 700)}`;

const begin = (server, log) => server.begin('crashy', log.flow, { session_id: `s${log.i}` },
  { 'idempotency-key': `start-${log.i}` });
const say = (server, log, n) => server.say(log.id, item_of(log.i, n),
  { 'idempotency-key': `message-${log.i}-${n}` });

const new_logs = (flow) =>
  Array.from({ length: CLIENTS }, (_, i) => ({ i, flow: flow(i), answers: [] }));

// Talks until the server dies or cannot make an answer durable, and is then killed; the log holds
// every answer that came.
async function talk(server, log) {
  const started = await begin(server, log);
  if (started.status === 503) return server.kill();
  assert.equal(started.status, 201, started.text);
  log.begun = started.text;
  log.id = started.json.conversation_id;
  for (let n = 1; n <= TURNS; n++) {
    const answer = await say(server, log, n);
    if (answer.status === 503) return server.kill();
    assert.equal(answer.status, 200, answer.text);
    log.answers.push(answer.text);
  }
  return null;
}

// A host's whole life under the shim, or what the cut leaves of it. Where the calls were that begin
// and end its load.
async function live(logs) {
  const server = new Server(place, small_log);
  const marks = [];
  const cut_off = (e) => { if (e instanceof assert.AssertionError) throw e; };
  try {
    await server.start([], disk.env);
    marks.push(disk.calls);
    await Promise.all(logs.map((log) => talk(server, log).catch(cut_off)));
    marks.push(disk.calls);
  } catch (e) { cut_off(e); }
  const end = await server.stop();
  assert.ok(end.code === (marks.length > 0 ? 0 : 1) || end.signal === 'SIGKILL', `${JSON.stringify(end)} ${server.errors}`);
  return [...marks, disk.calls];
}

// Every answer again, by repeating what was said; then the turn that was under way when the host died,
// which may have happened or not, and counts once.
async function repeat(server, log) {
  const started = await begin(server, log);
  assert.equal(started.status, 201, started.text);
  if (log.begun !== undefined) assert.equal(started.text, log.begun);
  log.begun = started.text;
  log.id = started.json.conversation_id;
  for (const [n, text] of log.answers.entries())
    assert.equal((await say(server, log, n + 1)).text, text, `turn ${n + 1} of ${log.i}`);
  const next = await say(server, log, log.answers.length + 1);
  assert.equal(next.status, 200, next.text);
  log.answers.push(next.text);
  const now = await server.get(`/v1/conversations/${log.id}`);
  assert.equal(now.json.state.count, log.answers.length);
}

function integrity() {
  if (FILE) return assert.deepEqual(broken_logs(join(disk.root, 'data')), []);
  const r = spawnSync('sqlite3', [join(disk.root, 'data/workflow.db'), 'PRAGMA integrity_check'],
    { encoding: 'utf8' });
  return assert.equal(r.stdout.trim(), 'ok', r.stderr);
}

const count_of = async (server, id) => {
  const r = await server.get(`/v1/conversations/${id}`);
  assert.equal(r.status, 200, r.text);
  return r.json.state.count;
};

// A new host, without faults, has it all, and at least the turns that somebody saw: id -> count.
async function check(logs, seen = new Map()) {
  const server = await new Server(place, small_log).start();
  for (const [id, count] of seen) assert.ok(await count_of(server, id) >= count, `${id}: ${count}`);
  await Promise.all(logs.map((log) => repeat(server, log)));
  const list = await server.get('/v1/conversations?system=crashy&limit=200');
  assert.equal(list.json.items.length, CLIENTS);
  await server.stop();
  integrity();
}

function renew() {
  rmSync(disk.root, { recursive: true });
  mkdirSync(disk.root);
  disk.forget();
}

// The power fails at a call. What is lost: everything that was not synced (no seed), or a part.
async function power_cut(cut, seed) {
  renew();
  disk.cut(cut);
  const logs = new_logs(both);
  await live(logs);
  disk.drop(seed);
  await check(logs);
}

// A sync of the file fails while the log is copied into it, which nobody is told; the log is still
// needed then. On logs: of one, of all at once, of the index's log.
async function power_cut_after_a_failed_copy(cut, seed) {
  renew();
  disk.cut(cut);
  disk.fault(['sync'], 'EIO', { after: cut % 4, count: 2,
    suffix: FILE ? '.log' : '.db' });
  if (FILE) {
    disk.fault(['sync'], 'EIO', { after: cut % 2, count: 1, suffix: '/lock', slot: 1 });
    disk.fault(['sync'], 'EIO', { after: cut % 5, count: 1, suffix: '-wal', slot: 2 });
  }
  const logs = new_logs(both);
  await live(logs);
  disk.drop(seed);
  await check(logs);
}

// The host dies alone. A new one has its files from the system's memory, not from the disk, and
// somebody reads what it says, which commits nothing. Then the power fails.
async function killed(seed) {
  const logs = new_logs(pure), seen = new Map();
  await live(logs);
  disk.mend();
  disk.cut(0);
  const server = await new Server(place, small_log).start([], disk.env);
  const list = await server.get('/v1/conversations?system=crashy&limit=200');
  for (const { conversation_id: id } of list.json.items) seen.set(id, await count_of(server, id));
  await server.kill();
  disk.drop(seed);
  await check(logs, seen);
}

async function killed_at_a_call(cut, seed) {
  renew();
  disk.cut(cut);
  await killed(seed);
}

// The host dies because a sync of its log failed: the next one will say yes and do nothing. How many
// syncs there are depends on how many turns share one; true: there were enough.
async function killed_at_a_sync(cut, seed) {
  renew();
  disk.fault(['sync'], 'EIO', { after: cut % (FILE ? 12 : 24), count: 1,
    suffix: FILE ? '.redo' : '-wal' }); // of more than 30, or 15, on an idle machine
  await killed(seed);
  return disk.met() === 1;
}

async function moments(share) {
  renew();
  const [started, loaded, stopped] = await live(new_logs(both));
  const count = CUTS === 'all' ? stopped : Math.min(stopped, Math.ceil(Number(CUTS) * share));
  const step = stopped / count;
  const list = Array.from({ length: count }, (_, i) => 1 + Math.floor((i + SEED % 7 / 7) * step));
  return { list, started, loaded, stopped };
}

// `whole`: of three power cuts, how many lose all that they can.
async function sweep(t, share, whole, one) {
  const { list, started, loaded, stopped } = await moments(share);
  t.diagnostic(`${started} calls to start, ${loaded - started} under load, ${stopped - loaded} to stop`);
  let missed = 0;
  for (const [i, cut] of list.entries()) {
    const seed = i % 3 < whole ? null : SEED * 100000 + i;
    try {
      if (await one(cut, seed) === false) missed++;
    } catch (e) {
      e.message = `cut at ${cut}, seed ${seed}: ${e.message}`;
      throw e;
    }
  }
  assert.ok(missed * 2 <= list.length, `${missed} of ${list.length} faults came too late`);
}

test('power cuts', (t) => sweep(t, 0.3, 1, power_cut));
test('a kill, then a power cut', (t) => sweep(t, 0.15, 2, killed_at_a_call));
test('a failed sync, a kill, then a power cut', (t) => sweep(t, 0.15, 2, killed_at_a_sync));
test('a failed copy of the log, then a power cut',
  (t) => sweep(t, 0.2, 1, power_cut_after_a_failed_copy));
if (!FILE) test('without a write-ahead log', async (t) => {
  configure(false);
  await sweep(t, 0.15, 2, power_cut);
  await sweep(t, 0.05, 2, killed_at_a_call);
});
