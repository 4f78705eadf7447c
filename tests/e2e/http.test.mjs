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

const start = async (config = {}, script = null) => {
  const place = new Place({ config: { server: config } });
  if (script) place.script(...script);
  const server = await new Server(place).start();
  await served(server);
  return { place, server };
};
const stop = async ({ place, server }) => {
  assert.deepEqual(await server.stop(), { code: 0, signal: null });
  place.remove();
};

// A conversation that takes one message after the other, without end.
const LOOP = ['loop', `
local tm = require "tidemill"
return tm.system { name = "loop", agents = {}, flows = { tm.ConversationFlow { flow_id = "loop",
  pattern = tm.ConversationPattern.STEP_BY_STEP_PROCESS, start_step = "ask", steps = {
    tm.ConversationStep { step_id = "ask", step_type = "user_input", prompt = "Next?",
      input_schema = { type = "text" }, save_as = "last", next_steps = { "ask" } } } } } }
`];
const loop = async (server) => (await server.begin('loop', 'loop')).json.conversation_id;
const message = (id, input, headers = '') => {
  const body = JSON.stringify({ input });
  return `POST /v1/conversations/${id}/messages HTTP/1.1\r\nHost: localhost\r\n`
    + `Content-Type: application/json\r\n${headers}Content-Length: ${body.length}\r\n\r\n${body}`;
};
const count = (text, pattern) => (text.match(pattern) ?? []).length;

describe('many connections', () => {
  const COUNT = nightly ? 10000 : 5000;

  test('thousands at once, idle and in mid-header: others are served, all is given back', async (t) => {
    const one = await start({ connection_limit: 2 * COUNT }), { server } = one;
    const open = Number(readFileSync(`/proc/${server.process.pid}/limits`, 'utf8')
      .match(/Max open files\s+(\d+)/)[1]);
    const many = Math.min(COUNT, open - 400);
    const before = { memory: resident(server), descriptors: descriptors(server) };
    const idle = await dialMany(server, many / 2), slow = await dialMany(server, many / 2, HEAD);
    // Connections of the first conversation may still linger in what was counted before.
    await until('all are there', () => descriptors(server) >= before.descriptors + many - 8);
    const each = (resident(server) - before.memory) / many;
    t.diagnostic(`${many} connections, ${Math.round(each)} bytes each`);
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

describe('what clients say', () => {
  let one, server;
  before(async () => {
    one = await start({ body_limit: 65536, idle_timeout: 2, request_timeout: 2 }, LOOP);
    server = one.server;
  });
  after(() => stop(one));
  const close = 'Connection: close\r\n';
  const post = (headers, body = '') => 'POST /v1/conversations HTTP/1.1\r\nHost: localhost\r\n'
    + `Content-Type: application/json\r\n${close}${headers}\r\n${body}`;
  const chunked = (body) => post('Transfer-Encoding: chunked\r\n', body);
  const json = (body) => post(`Content-Length: ${Buffer.byteLength(body)}\r\n`, body);
  const to = (target) => `GET ${target} HTTP/1.1\r\nHost: localhost\r\n${close}\r\n`;
  const by = (method) => `${method} HTTP/1.1\r\nHost: localhost\r\n${close}\r\n`;
  // Status 0: closed without an answer. A code: ours, as problem+json.
  const check = async (cases) => {
    const before = descriptors(server);
    await Promise.all(cases.map(async ([name, text, status, code]) => {
      const got = await wire(server, text);
      const at = `${name}: ${got.slice(0, 300)}`;
      if (!status) { assert.equal(got, '', at); return; }
      assert.match(got, new RegExp(`^HTTP/1\\.1 ${status} `), at);
      if (code) assert.equal(JSON.parse(got.slice(got.indexOf('\r\n\r\n') + 4)).code, code, at);
      if (status !== 100) assert.ok(count(got, /^HTTP\/1\.1 2/gm) <= 1, `one answer: ${at}`);
    }));
    await served(server);
    await until('all is given back', () => descriptors(server) <= before + 2);
  };

  test('heads', () => check([
    ['a huge header', `${HEAD}X: ${'a'.repeat(100000)}\r\n\r\n`, 431],
    ['many headers', `${HEAD}${'X-A: 1\r\n'.repeat(5000)}\r\n`, 431],
    ['a head without end', `${HEAD}${'X-A: 1\r\n'.repeat(50000)}`, 431],
    ['a huge target', to(`/${'a'.repeat(100000)}`), 414],
    ['a huge method', by(`${'G'.repeat(100000)} /`), 414],
    ['a NUL', `${HEAD}X: a\0b\r\n\r\n`, 400, 'request.header'],
    ['LF alone', 'GET /livez HTTP/1.1\nHost: localhost\n\n', 400, 'request.header'],
    ['CR within', `${HEAD}X: a\rY: b\r\n\r\n`, 400, 'request.header'],
    ['folding', `${HEAD}X: a\r\n b\r\n\r\n`, 400, 'request.header'],
    ['no name', `${HEAD}: b\r\n\r\n${HEAD}\r\n`, 400, 'request.header'],
    ['no colon', `${HEAD}rubbish\r\n\r\n`, 400],
    ['no Host', 'GET /livez HTTP/1.1\r\n\r\n', 400, 'request.header'],
    ['two Hosts', `${HEAD}Host: localhost\r\n\r\n`, 400, 'request.header'],
    ['a Host with a user', to('/livez').replace('localhost', 'localhost:1@x'), 403, 'request.host'],
    ['a Host elsewhere', to('/livez').replace('localhost', 'example.org'), 403, 'request.host'],
  ]));

  test('bodies and where they end', () => check([
    ...['+2', '-2', '0x2', '2,2', '2;', '2e0', '', '2 2'].map(
      (n) => [`length ${n}`, post(`Content-Length: ${n}\r\n`, '{}'), 400]),
    ['a length beyond all', post('Content-Length: 18446744073709551618\r\n', '{}'), 413],
    ['two lengths', post('Content-Length: 2\r\nContent-Length: 2\r\n', '{}'), 400, 'request.header'],
    ['length and chunks', post('Content-Length: 2\r\nTransfer-Encoding: chunked\r\n', '{}'), 400,
      'request.framing'],
    ...['gzip', 'chunked, chunked', 'xchunked', 'chunked;q=1', 'identity', ''].map(
      (c) => [`coding ${c}`, post(`Transfer-Encoding: ${c}\r\n`, '0\r\n\r\n'), 501,
        'request.transfer_encoding']),
    ...['-2', '+2', '0x2', ' 2', '2 ', 'zz', ''].map(
      (n) => [`chunk ${n}`, chunked(`${n}\r\n{}\r\n0\r\n\r\n`), 400]),
    ['a chunk beyond all', chunked('10000000000000002\r\n{}'), 413],
    ['a chunk that never comes', chunked('ffffffffffffffff\r\n{}'), 408, 'request.timeout'],
    ['a chunk head without end', chunked('0'.repeat(60000)), 408, 'request.timeout'],
    ['endless chunks', chunked('1\r\n \r\n'.repeat(80000)), 413, 'body.too_large'],
    ['chunk extensions', chunked(`2;${'x'.repeat(20000)}\r\n{}\r\n0\r\n\r\n`), 400,
      'request.member_missing'],
    ['headers behind', chunked('2\r\n{}\r\n0\r\nX: y\r\n\r\n'), 400, 'request.framing'],
    ['endless headers behind', chunked(`2\r\n{}\r\n0\r\n${'X: y\r\n'.repeat(20000)}\r\n`), 431],
    ['a body that never comes', post('Content-Length: 5\r\n', '{}'), 408, 'request.timeout'],
    ['too much is announced', post('Content-Length: 65537\r\n'), 413, 'body.too_large'],
    ['too much is announced and asked for', post('Expect: 100-continue\r\n'
      + 'Content-Length: 65537\r\n'), 413, 'body.too_large'],
    ['too much comes', post('Content-Length: 1000000\r\n', 'x'.repeat(1000000)), 413, 'body.too_large'],
    ['leave is asked and nothing comes', post('Expect: 100-continue\r\nContent-Length: 2\r\n'), 100],
  ]));

  test('JSON bombs', () => check([
    ['deep lists', json('['.repeat(60000)), 400, 'json.depth'],
    ['deep objects', json('{"a":'.repeat(12000)), 400, 'json.depth'],
    ['a huge number', json(`{"metadata":{"a":${'9'.repeat(60000)}}}`), 400, 'json.invalid'],
    ['a number beyond', json('{"metadata":{"a":1e999}}'), 400, 'json.invalid'],
    ['a long key', json(`{"${'k'.repeat(60000)}":1}`), 400, 'request.member_unknown'],
    ['a key twice', json('{"system":"a","system":"b"}'), 400, 'json.invalid'],
    ['a key with a NUL', json('{"a\\u0000b":1}'), 400, 'json.invalid'],
    ['many keys', json(`{${Array.from({ length: 7000 }, (_, i) => `"${i}":1`)}}`), 400,
      'request.member_unknown'],
    ['many lists', json(`[${Array(6000).fill('[]')}]`), 400, 'json.too_many'],
    ['half a character', json('{"system":"\\ud800"}'), 400, 'json.invalid'],
    ['nothing but blanks', json(' '.repeat(60000)), 400, 'json.invalid'],
  ]));

  test('versions, methods, targets', () => check([
    ['HTTP/0.9', 'GET /livez\r\n\r\n', 400],
    ['HTTP/1.0', 'GET /livez HTTP/1.0\r\nHost: localhost\r\n\r\n', 200],
    ['HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 505],
    ['an upgrade', to('/livez').replace('close', 'close, upgrade\r\nUpgrade: h2c'), 200],
    ['TLS', '\x16\x03\x01\x02\0\x01\0\r\n\r\n', 0],
    ...['OPTIONS', 'TRACE', 'DELETE', 'get', 'FOO', '"'].map(
      (m) => [m, by(`${m} /livez`), 405, 'route.method']),
    ['HEAD', by('HEAD /livez'), 200],
    ['CONNECT', by('CONNECT localhost:80'), 404, 'route.not_found'],
    ['OPTIONS *', by('OPTIONS *'), 404, 'route.not_found'],
    ...['http://localhost/livez', 'http://example.org/livez', '//livez', '/../livez', '/%2e%2e/livez',
      '/./livez', '/livez/', '/livez/..', '/livez%2f', '/livez#x', '*', 'livez', '/livez;a',
      '/%c0%ae', '/\xff\xfe', `/${'a/'.repeat(10000)}`].map(
      (t) => [t.slice(0, 40), to(t), 404, 'route.not_found']),
    ['an encoded slash', to('/v1/conversations/..%2f..%2flivez'), 404, 'conversation.not_found'],
    ['an encoded NUL', to('/livez%00'), 400, 'request.target'],
    ['half an escape', to('/livez%2'), 400, 'request.target'],
    ['a known escape', to('/%6civez'), 200],
    ['an unknown parameter', to('/livez?a=1'), 400, 'request.query'],
    ['300 parameters', to(`/v1/conversations?${'a=1&'.repeat(300)}`), 400, 'request.query'],
    ['3,000 parameters', to(`/v1/conversations?${'a=1&'.repeat(3000)}`), 0],
  ]));

  test('thousands of requests in one breath', async () => {
    const many = nightly ? 50000 : 5000, id = await loop(server);
    const got = await wire(server, `${HEAD}\r\n`.repeat(many) + to('/livez'), 60000);
    assert.equal(count(got, /HTTP\/1\.1 200 /g), many + 1);
    const said = await wire(server, message(id, 'x').repeat(200) + to('/livez'), 60000);
    assert.equal(count(said, /HTTP\/1\.1 200 /g), 201, 'bodies among them');
    assert.equal((await server.get(`/v1/conversations/${id}`)).json.revision, 201);
  });

  test('thousands of requests whose answers nobody reads', async () => {
    const memory = resident(server), before = descriptors(server);
    const socket = await dial(server);
    socket.pause();
    const one = `GET /v1/systems HTTP/1.1\r\nHost: localhost\r\n\r\n`;
    for (let i = 0; i < 200 && !socket.over; i++) {
      if (!socket.write(one.repeat(1000))) break;
    }
    for (let i = 0; i < 5; i++) await served(server);
    assert.ok(resident(server) - memory < 32 * 1024 * 1024, 'they are not piled up');
    await until('its time is over', () => descriptors(server) <= before);
    socket.destroy();
  });

  test('half closed', async () => {
    const id = await loop(server);
    const got = await new Promise((done) => {
      let all = '';
      const socket = connect({ port: port(server), host: '127.0.0.1', allowHalfOpen: true },
        () => socket.end(message(id, 'x', close)));
      socket.on('data', (d) => { all += d; });
      socket.on('end', () => { socket.destroy(); done(all); });
    });
    assert.match(got, /^HTTP\/1\.1 200 /);
  });

  test('reset in every phase', async () => {
    const id = await loop(server), whole = message(id, 'x'), before = descriptors(server);
    const turns = [];
    for (let i = 0; i < whole.length; i += nightly ? 1 : 7) {
      const socket = await dial(server, whole.slice(0, i));
      if (i % 2) await wait(0);
      socket.resetAndDestroy();
    }
    for (let i = 0; i < 100; i++) { // the whole request is there: the turn goes on without its client
      turns.push(dial(server, whole).then(async (socket) => {
        await until('the turn is there', async () =>
          (await server.get(`/v1/conversations/${id}`)).json.revision > 1);
        socket.resetAndDestroy();
      }));
    }
    await Promise.all(turns);
    await until('every turn that came is there', async () => {
      const now = await server.get(`/v1/conversations/${id}`);
      return now.json.revision >= 65 && now.json.status === 'waiting_input';
    });
    await served(server);
    await until('all is given back', () => descriptors(server) <= before + 2);
  });
});

describe('too much work', () => {
  test('messages for one conversation', async (t) => {
    const one = await start({ connection_limit: 4000 }, LOOP), { server } = one; // many are less than half
    const many = 1000, each = nightly ? 100 : 20, id = await loop(server);
    const memory = resident(server);
    const sockets = await dialMany(server, many);
    let most = 0;
    for (const s of sockets) s.write(message(id, 'x'.repeat(100)).repeat(each));
    const seen = () => sockets.reduce((n, s) => n + count(s.got, /HTTP\/1\.1 \d/g), 0);
    await served(server);
    await until('all are answered', async () => {
      most = Math.max(most, resident(server));
      await wait(100);
      return seen() === many * each;
    });
    const all = sockets.map((s) => s.got).join('');
    const done = count(all, /HTTP\/1\.1 200 /g), full = count(all, /HTTP\/1\.1 429 /g);
    assert.equal(done + full, many * each, 'each is done, or told to come again');
    assert.equal(count(all, /"code":"conversation\.queue_full"/g), full);
    assert.ok(full === 0 || /Retry-After: \d+/.test(all));
    assert.equal((await server.get(`/v1/conversations/${id}`)).json.revision, done + 1);
    const grown = Math.round((most - memory) / 1024 / 1024);
    t.diagnostic(`${done} done, ${full} told to come again, ${grown} MiB`);
    assert.ok(grown < 64 + each, `${grown} MiB`);
    end(sockets);
    await stop(one);
  });

  test('bodies that are held back', async () => {
    const limit = 4 * 1024 * 1024;
    const one = await start({ memory_limit: limit }), { server } = one;
    const memory = resident(server);
    const head = `POST /v1/conversations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n`;
    const sockets = await dialMany(server, 50);
    for (const s of sockets) s.write(head + 'x'.repeat(999999));
    await until('the oldest gave way',
      () => sockets.filter((s) => /server\.busy/.test(s.got)).length >= 40);
    for (let i = 0; i < 5; i++) await served(server);
    assert.ok(resident(server) - memory < 8 * limit, `${resident(server) - memory} bytes`);
    end(sockets);
    await stop(one);
  });
});
