// The disk that the other disk tests stand on: what it keeps, what it forgets, how it fails; and that
// a store which acknowledges too early is found out by it.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync }
  from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { program } from './host.mjs';
import { Disk } from '../shim/disk.mjs';

const user = join(dirname(program), 'tests/disk_user');

// Runs `body(disk, run, text)` in a folder of its own.
const with_disk = (body) => () => {
  const dir = mkdtempSync(join(tmpdir(), 'tidemill-disk-'));
  try {
    const disk = new Disk(join(dir, 'root'), join(dir, 'state'));
    const run = (...commands) => {
      const r = spawnSync(user, commands, { cwd: disk.root, env: { ...process.env, ...disk.env },
        encoding: 'utf8' });
      assert.equal(r.stderr, '');
      return { out: r.stdout.trim(), signal: r.signal };
    };
    body(disk, run, (name) => readFileSync(join(disk.root, name), 'latin1'));
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
};
const base = (disk, run, text = 'aaaa') => { // a durable file
  assert.equal(run(`write f 0 ${text}`, 'sync f', 'sync .').out, '');
  disk.forget();
};

test('what was synced stays, what was not goes', with_disk((disk, run, text) => {
  base(disk, run);
  run('write f 0 bb', 'sync f', 'write f 2 cc', 'write f 4 dddd');
  assert.equal(text('f'), 'bbccdddd');
  assert.deepEqual(disk.drop(), { changed: 2, renamed: 0 });
  assert.equal(text('f'), 'bbaa');
  run('truncate f 1', 'write f 3 x');
  disk.drop();
  assert.equal(text('f'), 'bbaa');
  run('truncate f 1', 'sync f', 'write f 3 x');
  disk.drop();
  assert.equal(text('f'), 'b');
}));

test('names need their folder to be synced', with_disk((disk, run, text) => {
  base(disk, run);
  run('write g 0 new', 'sync g', 'mkdir sub', 'write sub/h 0 x', 'sync sub/h', 'sync sub');
  disk.drop();
  assert.deepEqual(readdirSync(disk.root), ['f']);
  run('write g 0 new', 'sync g', 'sync .', 'rename g f');
  disk.drop();
  assert.equal(text('f'), 'aaaa');
  assert.equal(text('g'), 'new');
  run('rename g f', 'sync .', 'unlink f', 'write f 0 third');
  disk.drop();
  assert.equal(text('f'), 'new');
  run('unlink f', 'sync .');
  disk.drop();
  assert.deepEqual(readdirSync(disk.root), []);
}));

test('a sync of all is one of every file and folder', with_disk((disk, run, text) => {
  base(disk, run);
  run('write f 0 b', 'mkdir sub', 'write sub/h 0 x', 'syncall f');
  assert.deepEqual(disk.drop(), { changed: 0, renamed: 0 });
  assert.equal(text('f'), 'baaa');
  assert.equal(text('sub/h'), 'x');
  disk.fault(['sync'], 'EIO', { count: 1, suffix: '/f' });
  assert.equal(run('write f 1 c', 'syncall f', 'syncall f').out, 'EIO');
  disk.drop();
  assert.equal(text('f'), 'baaa');
}));

test('any part of it may have arrived, sector by sector', with_disk((disk, run, text) => {
  const old = 'o'.repeat(1536), fresh = 'n'.repeat(1536);
  const seen = new Set();
  base(disk, run, old);
  for (let seed = 0; seed < 60; seed++) {
    run(`write f 0 ${fresh}`);
    disk.drop(seed);
    const got = text('f');
    for (let s = 0; s < 3; s++)
      assert.match(got.slice(s * 512, s * 512 + 512), /^(o{512}|n{512})$/);
    seen.add(got[0] + got[512] + got[1024]);
    run(`write f 0 ${old}`);
    disk.forget();
  }
  assert.equal(seen.size, 8);
}));

test('shared memory is never durable', with_disk((disk, run) => {
  run('write f-shm 0 x', 'sync f-shm', 'sync .');
  disk.drop();
  assert.ok(!existsSync(join(disk.root, 'f-shm')));
}));

test('calls fail as ordered', with_disk((disk, run, text) => {
  base(disk, run);
  disk.fault(['write'], 'ENOSPC', { after: 1, count: 1 });
  assert.equal(run('write f 0 b', 'write f 1 c', 'write f 2 d').out, 'ENOSPC');
  assert.equal(disk.met(), 1);
  assert.equal(text('f'), 'bada');
  disk.fault(['write'], 'EIO', { effect: 'torn' });
  assert.equal(run('write f 0 1234').out, 'EIO');
  assert.equal(text('f'), '12da');
  disk.fault(['write'], 'EIO', { effect: 'short', suffix: 'f' });
  assert.equal(run('write f 2 3456', 'write g 0 whole').out, 'short');
  assert.equal(text('f'), '1234');
  disk.fault(['rename', 'unlink', 'mkdir', 'truncate', 'open', 'create'], 'EROFS');
  assert.equal(run('rename f g', 'unlink f', 'mkdir s', 'truncate f 0', 'write new 0 x').out,
    Array(5).fill('EROFS').join('\n'));
  disk.mend();
  assert.equal(run('write f 0 ok').out, '');
}));

test('after a failed sync a good one brings nothing back', with_disk((disk, run, text) => {
  base(disk, run);
  disk.fault(['sync'], 'EIO', { count: 1 });
  assert.equal(run('write f 0 b', 'sync f', 'sync f').out, 'EIO');
  disk.drop();
  assert.equal(text('f'), 'aaaa');
  disk.fault(['sync'], 'EIO', { count: 1 });
  assert.equal(run('write f 0 b', 'sync f', 'write f 1 c', 'sync f').out, 'EIO');
  disk.drop();
  assert.equal(text('f'), 'bcaa', 'writing the page again writes all of it');
}));

test('each descriptor hears once of what was lost', with_disk((disk, run, text) => {
  base(disk, run);
  const fail = () => disk.fault(['sync'], 'EIO', { count: 1 });
  fail();
  assert.equal(run('keep f', 'write f 0 b', 'syncall .', 'synckept', 'synckept', 'sync f').out, 'EIO\nEIO');
  disk.drop();
  assert.equal(text('f'), 'aaaa');
  fail();
  assert.equal(run('write f 0 b', 'syncall .', 'sync f', 'sync f').out, 'EIO\nEIO', 'opened later');
  fail();
  assert.equal(run('keep f', 'write f 0 b', 'sync f', 'synckept', 'syncall .').out, 'EIO\nEIO\nEIO');
  disk.drop();
  fail();
  assert.equal(run('keep f', 'syncall .', 'synckept').out, 'EIO', 'nothing was lost');
  fail();
  assert.equal(run('keep f', 'write f 0 b', 'syncall .', 'write f 1 c', 'synckept').out, 'EIO\nEIO');
  disk.drop();
  assert.equal(text('f'), 'bcaa', 'it is told although this one is durable');
}));

// The first records that are whole.
const present = (disk) => {
  const bytes = existsSync(join(disk.root, 'log')) ? readFileSync(join(disk.root, 'log')) : '';
  let n = 0;
  const whole = (i) => {
    const part = bytes.subarray((i - 1) * 600, i * 600);
    return part.length === 600 && part.every((b) => b === 97 + i % 26);
  };
  while (n * 600 < bytes.length && whole(n + 1)) n++;
  return n;
};

// Cuts a store of ten records at every call; how many acknowledged records were lost in all.
const losses = (disk, run, when) => {
  let lost = 0;
  for (let cut = 1; ; cut++) {
    disk.cut(cut);
    const r = run(`store log 10 ${when}`);
    disk.drop(cut % 3 === 0 ? null : cut);
    lost += Math.max(0, r.out.split('\n').filter(Boolean).length - present(disk));
    if (r.signal === null) return { lost, cuts: cut - 1 };
    assert.equal(r.signal, 'SIGKILL');
    rmSync(join(disk.root, 'log'), { force: true });
  }
};

test('a store that acknowledges after the sync loses nothing', with_disk((disk, run) => {
  assert.deepEqual(losses(disk, run, 'after'), { lost: 0, cuts: 22 });
}));

test('a store that acknowledges before the sync is found out', with_disk((disk, run) => {
  assert.ok(losses(disk, run, 'before').lost > 0);
}));
