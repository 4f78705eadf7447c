// What bench/run.sh ends with: each figure that has a bound says whether it is held.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const HELD = fileURLToPath(new URL('../../bench/held.sh', import.meta.url));
const judged = (...lines) => {
  const r = spawnSync(HELD, { input: lines.map((l) => `${l}\n`).join(''), encoding: 'utf8' });
  return { code: r.status, lines: r.stdout.split('\n').slice(0, -1) };
};

test('figures within their bounds are held', () => {
  const lines = ['# round 1 of 3', 'library / limit: 0.412 (at least 0.4)',
    'deadlines: CPU (quartiles 1.01 and 1.20; last: 90 / 80 us): 1.10 (at most 1.10)',
    'bytes on file: 12 after 60 turns, 13 after 500, ratio 1.08 (at most 1.1)',
    "a version beyond the runtime's own code: 150 KiB per worker (at most 150)"];
  const r = judged(...lines);
  assert.deepEqual(r.lines, [lines[0], ...lines.slice(1).map((l) => `${l}: held`), 'held: 4 of 4']);
  assert.equal(r.code, 0);
});

test('one that is not fails the bench, at its end', () => {
  const r = judged('a version: 151 KiB per worker (at most 150)', 'http / limit: 0.3 (at least 0.25)',
    'http / limit: 0.2 (at least 0.25)', 'library / limit: nan (at least 0.4)');
  assert.deepEqual(r.lines.slice(0, 4).map((l) => l.split('): ')[1]),
    ['not held', 'held', 'not held', 'not held']);
  assert.equal(r.lines[4], 'not held: 3 of 4');
  assert.equal(r.code, 1);
});
