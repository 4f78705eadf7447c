// Whoever reads the log may stall; the host does not.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { closeSync, constants, openSync, readSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { Place, Server } from './host.mjs';

// A pipe that nobody reads until `rest` does.
function pipe(t, place) {
  const path = join(place.dir, 'log.pipe');
  assert.equal(spawnSync('mkfifo', [path]).status, 0);
  const out = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const into = openSync(path, constants.O_WRONLY);
  t.after(() => [out, into].forEach(closeSync));
  const rest = () => {
    const parts = [], part = Buffer.alloc(65536);
    try {
      for (let n; (n = readSync(out, part)) > 0;) parts.push(Buffer.from(part.subarray(0, n)));
    } catch (e) {
      assert.equal(e.code, 'EAGAIN');
    }
    return Buffer.concat(parts).toString();
  };
  return { into, rest };
}

// A line of the log for each.
const provoke = (url, count) => new Promise((ok, fail) => {
  const { hostname, port } = new URL(url);
  let left = count;
  const one = () => {
    if (left-- === 0) return ok();
    const socket = connect(Number(port), hostname);
    socket.on('error', fail).on('close', one).resume();
    socket.setTimeout(5000, () => fail(new Error('no answer')));
    socket.end('GET /livez HTTP/9.1\r\n\r\n');
  };
  one();
});

test('a log that nobody reads stops nothing, and tells what is missing', async (t) => {
  const place = new Place({ shipped: false, config: { log: { level: 'debug' } } });
  t.after(() => place.remove());
  const log = pipe(t, place);
  const server = await new Server(place).start([], {}, { log: log.into });
  await provoke(server.url, 1500);
  assert.equal((await server.get('/livez')).status, 200);
  const told = log.rest();
  assert.match(told, /HTTP/);
  assert.doesNotMatch(told, /left out/);
  await provoke(server.url, 1);
  assert.match(log.rest(), /^tidemill: [1-9]\d* lines of the log are left out: nobody read it\n.*\n$/s);
  await provoke(server.url, 1500);
  assert.deepEqual(await server.stop(), { code: 0, signal: null });
});
