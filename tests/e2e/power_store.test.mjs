// The power fails at any moment of a store's life, purges and sweeps included, without a host around
// it. What was not synced is lost, in whole or in part; everything that the store acknowledged is there,
// once and whole, nothing that was purged comes back, and it goes on. POWER_CUTS: how many moments, or
// `all`; POWER_SEED: which ones.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { Disk } from '../shim/disk.mjs';
import { program } from './host.mjs';

const NIGHTLY = process.env.TIDEMILL_NIGHTLY === '1';
const CUTS = process.env.POWER_CUTS ?? (NIGHTLY ? '400' : '50');
const SEED = Number(process.env.POWER_SEED ?? 1);
const user = join(dirname(program), 'tests/store_user');

// Each store: its backend, where it lies on the disk, what else it is told.
const STORES = [
  ['sqlite', 'data/x.db'],
  ['sqlite', 'data/x.db', 'nolog'],
  ['file', 'data/states'],
];

function on_disk(body) {
  const dir = mkdtempSync(join(tmpdir(), 'tidemill-power-'));
  try {
    body(new Disk(join(dir, 'root'), join(dir, 'state')));
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

function renew(disk) {
  rmSync(disk.root, { recursive: true });
  mkdirSync(disk.root);
  disk.forget();
}

// A life under the shim, or what the cut leaves of it: what was acknowledged.
function live(disk, [scheme, place, ...more]) {
  const r = spawnSync(user, [scheme, join(disk.root, place), 'live', ...more],
    { env: { ...process.env, ...disk.env }, encoding: 'utf8' });
  assert.equal(r.stderr, '');
  return { text: r.stdout, status: r.status, signal: r.signal };
}

function check(disk, [scheme, place, ...more], input) {
  const r = spawnSync(user, [scheme, join(disk.root, place), 'check', ...more],
    { input, encoding: 'utf8' });
  assert.equal(r.status, 0, `${r.stdout}${r.stderr}\nacknowledged:\n${input}`);
}

// Whole lines: what was being written when the power failed was not heard.
const heard = (text) => text.slice(0, text.lastIndexOf('\n') + 1);

for (const store of STORES) {
  test(`power cuts: ${store.join(' ')}`, (t) => on_disk((disk) => {
    renew(disk);
    assert.equal(live(disk, store).status, 0);
    const calls = disk.calls;
    const count = CUTS === 'all' ? calls : Math.min(calls, Number(CUTS));
    t.diagnostic(`${calls} calls, ${count} cuts`);
    let losses = 0;
    for (let i = 0; i < count; i++) {
      const cut = 1 + Math.floor((i + SEED % 7 / 7) * calls / count);
      const seed = i % 3 === 0 ? null : SEED * 100000 + i;
      renew(disk);
      disk.cut(cut);
      const end = live(disk, store);
      assert.equal(end.signal, 'SIGKILL', `cut ${cut}: ${end.text}`);
      losses += disk.drop(seed).changed;
      try {
        check(disk, store, heard(end.text));
      } catch (e) {
        e.message = `cut at ${cut}, seed ${seed}: ${e.message}`;
        throw e;
      }
    }
    assert.ok(losses > 0, 'something was lost'); // or the disk forgets nothing
  }));

  // A call fails, once or for good; the store says so or goes on, and keeps what it said.
  test(`failing calls: ${store.join(' ')}`, () => on_disk((disk) => {
    const kinds = [['write', 'ENOSPC'], ['sync', 'EIO'], ['truncate', 'EIO'], ['unlink', 'EIO']];
    for (let i = 0; i < Math.min(Number(CUTS) || 400, 400) / 4; i++) {
      const [op, error] = kinds[i % kinds.length];
      renew(disk);
      disk.fault([op], error, { after: i * 5 % 97, count: i % 2 === 0 ? 1 : undefined });
      const end = live(disk, store);
      disk.drop(i % 3 === 0 ? null : SEED * 100000 + i);
      const lines = end.text.split('\n').filter((l) => !/^store\./.test(l)).join('\n');
      try {
        check(disk, store, lines.endsWith('\n') || lines === '' ? lines : `${lines}\n`);
      } catch (e) {
        e.message = `fault ${i} (${op} ${error}): ${e.message}`;
        throw e;
      }
    }
  }));
}
