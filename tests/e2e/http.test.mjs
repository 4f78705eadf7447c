// Clients that behave badly: each is answered or dropped as docs/configuration.md says, whoever
// behaves is served meanwhile, and what was taken is given back.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { Place, Server, wait } from './host.mjs';

const nightly = process.env.TIDEMILL_NIGHTLY === '1';
const HEAD = 'GET /livez HTTP/1.1\r\nHost: localhost\r\n';

const port = (server) => Number(new URL(server.url).port);
const resident = (server) => Number(
  readFileSync(`/proc/${server.process.pid}/status`, 'utf8').match(/VmRSS:\s+(\d+)/)[1]) * 1024;
const descriptors = (server) => readdirSync(`/proc/${server.process.pid}/fd`).length;
const processorMs = (server) => {
  const f = readFileSync(`/proc/${server.process.pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return (Number(f[11]) + Number(f[12])) * 10;
};
const until = async (what, holds) => {
  for (let i = 0; i < 500; i++) {
    if (await holds()) return;
    await wait(20);
  }
  assert.fail(`never: ${what}`);
};

// A connection that says `text`; `got` is what came back, `closed` whether it is over.
const dial = (server, text = '') => new Promise((done) => {
  const socket = connect(port(server), '127.0.0.1');
  socket.got = '';
  socket.setEncoding('latin1');
  socket.on('data', (d) => { socket.got += d; });
  socket.on('connect', () => { if (text) socket.write(text); done(socket); });
  socket.on('error', () => {});
  socket.on('close', () => { socket.over = true; done(socket); });
});
const dialMany = async (server, count, text) => {
  const all = [];
  while (all.length < count) {
    const some = Math.min(250, count - all.length);
    all.push(...await Promise.all(Array.from({ length: some }, () => dial(server, text))));
  }
  return all;
};
const end = (sockets) => { for (const s of sockets) s.destroy(); };

// Everything that comes back for `text` until the other side closes.
const wire = (server, text, limitMs = 20000) => new Promise((done, fail) => {
  const parts = [];
  const socket = connect(port(server), '127.0.0.1', () => socket.write(text));
  socket.on('data', (d) => parts.push(d));
  socket.on('error', () => {});
  socket.on('close', () => done(Buffer.concat(parts).toString('latin1')));
  setTimeout(() => { socket.destroy(); fail(new Error(`still open: ${Buffer.concat(parts)}`)); },
    limitMs).unref();
});

// A conversation of its own on a connection of its own.
const served = async (server) => {
  const headers = { connection: 'close' };
  const r = await server.begin('customer_service', 'comprehensive_workflow', {}, headers);
  assert.equal(r.status, 201, r.text);
  const said = await server.say(r.json.conversation_id, 'Where is my parcel, please?', headers);
  assert.equal(said.status, 200, said.text);
  return r.json.conversation_id;
};

describe('many connections', () => {
  const COUNT = 5000;
  const start = async (config) => {
    const place = new Place({ config: { server: config } });
    const server = await new Server(place).start();
    await served(server);
    return { place, server };
  };
  const stop = async ({ place, server }) => {
    assert.deepEqual(await server.stop(), { code: 0, signal: null });
    place.remove();
  };

  test('5,000 at once, idle and in mid-header: others are served, all is given back', async (t) => {
    const one = await start({ connection_limit: 6000 }), { server } = one;
    const open = Number(readFileSync(`/proc/${server.process.pid}/limits`, 'utf8')
      .match(/Max open files\s+(\d+)/)[1]);
    const count = Math.min(COUNT, open - 400);
    const before = { memory: resident(server), descriptors: descriptors(server) };
    const idle = await dialMany(server, count / 2), slow = await dialMany(server, count / 2, HEAD);
    await until('all are there', () => descriptors(server) >= before.descriptors + count);
    const each = (resident(server) - before.memory) / count;
    t.diagnostic(`${count} connections, ${Math.round(each)} bytes each`);
    assert.ok(each < 48 * 1024, `${each} bytes for a connection`);
    const used = processorMs(server);
    for (let i = 0; i < 5; i++) await served(server);
    assert.ok(processorMs(server) - used < 3000, 'connections that do nothing cost nothing');
    for (const s of slow.slice(0, 100)) s.write('\r\n');
    await until('the slow ones are served too',
      () => slow.slice(0, 100).every((s) => s.got.startsWith('HTTP/1.1 200')));
    end([...idle, ...slow]);
    await until('all is given back', () => descriptors(server) <= before.descriptors + 8);
    await stop(one);
  });

  test('more than the limit: who waits longest gives way', async () => {
    const one = await start({ connection_limit: 100 }), { server } = one;
    const before = descriptors(server);
    const slow = await dialMany(server, 1000, HEAD);
    for (let i = 0; i < 5; i++) await served(server);
    assert.ok(descriptors(server) < before + 300, 'what is over the limit is not kept');
    const told = slow.filter((s) => s.got.startsWith('HTTP/1.1 503'));
    assert.ok(told.length > 0 && told.every((s) => /server\.busy/.test(s.got)), 'they are told');
    end(slow);
    await stop(one);
  });

  test('fewer descriptors than connections', async () => {
    const place = new Place();
    const server = await new Server(place).start([], {}, { descriptors: 128 });
    assert.match(server.errors, /server\.connection_limit.*descriptors/);
    const slow = await dialMany(server, 500, HEAD);
    for (let i = 0; i < 5; i++) await served(server);
    assert.ok(descriptors(server) < 128);
    end(slow);
    await served(server);
    await stop({ place, server });
  });
});
