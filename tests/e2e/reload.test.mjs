// New scripts in a running server: by command, signal, request and watcher; bad ones; a busy server.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { noted, Place, program, Server, wait } from './host.mjs';

const script = (word) => `
local tm = require "tidemill"
local word = require "word"
local host = tm.AssistantAgent { user_id = "host", system_message = "Polite." }
local talk = tm.ConversationFlow { flow_id = "talk", start_step = "ask", steps = {
  tm.ConversationStep { step_id = "ask", step_type = "user_input", prompt = "Name?",
    input_schema = { type = "text", required = true }, save_as = "name", next_steps = { "greet" } },
  tm.ConversationStep { step_id = "greet", step_type = "agent_response", agent = host,
    prompt = "Greet {name}.", response = word .. "${word} {name}", next_steps = { "ask" } } } }
return tm.system { agents = { host = host }, flows = { talk } }
`;
const BROKEN = script('broken').replace('flow_id = "talk"', 'flow_idd = "talk"');

const places = [];
after(() => { for (const place of places) place.remove(); });
const serve = async (args = [], config = {}) => {
  const place = new Place({ shipped: false, config });
  places.push(place);
  place.script('talk', 'return ""', 'word.lua');
  place.script('talk', script('hello'));
  return { place, server: await new Server(place).start(args) };
};

const version = async (server) => (await server.get('/v1/systems')).json.items[0].version;
const begin = async (server) => (await server.begin('talk', 'talk')).json.conversation_id;
const reply = async (server, id) => (await server.say(id, 'Ann')).json.replies[0].text;
// Waits for what a signal or a watcher brings about.
const until = async (what, holds) => {
  for (let i = 0; i < 1500; i++) {
    if (await holds()) return;
    await wait(20);
  }
  assert.fail(`never: ${what}`);
};
// What the server says from now on.
const listen = (server) => {
  const from = server.errors.length;
  return () => noted(server.errors.slice(from));
};

test('tidemill reload finds the server and says what is new', async () => {
  const { place, server } = await serve(['--listen', '127.0.0.1:0'],
    { server: { listen: '127.0.0.1:1' } });
  const before = await version(server);
  let r = place.run(['reload']);
  assert.equal(r.code, 0, r.err);
  assert.match(r.out, /^nothing changed/);
  place.script('talk', script('welcome'));
  place.script('other', script('other').replace('require "word"', '""'));
  r = place.run(['reload'], { env: { http_proxy: 'http://127.0.0.1:1' } });
  assert.equal(r.code, 0, r.err);
  assert.match(r.out, new RegExp(`^other [0-9a-f]{16} new\ntalk [0-9a-f]{16} was ${before}\n$`));
  rmSync(join(place.dir, 'scripts/other'), { recursive: true });
  const answer = JSON.parse(place.run(['reload', '--json']).out);
  assert.deepEqual(answer.removed, ['other']);
  assert.equal(answer.systems[0].version, answer.systems[0].previous);
  assert.equal(await reply(server, await begin(server)), 'welcome Ann');
  await server.stop();
});

test('a bad script: file, line, exit code 1, and everything stays', async () => {
  const { place, server } = await serve();
  const id = await begin(server), before = await version(server);
  place.script('talk', BROKEN);
  const r = place.run(['reload']);
  assert.equal(r.code, 1);
  assert.equal(r.out, '');
  assert.match(r.err, /scripts\/talk\/init\.lua:\d+: .*flow_id.*\[script\.invalid\]\n$/s);
  const asked = await server.post('/v1/admin/reload', {});
  assert.equal(asked.status, 500);
  assert.match(asked.json.detail, /scripts\/talk\/init\.lua:\d+: /);
  assert.equal(await version(server), before);
  assert.equal(await reply(server, await begin(server)), 'hello Ann');
  assert.equal(await reply(server, id), 'hello Ann');
  await server.stop();
});

test('no server answers, or something else does', async () => {
  const { place, server } = await serve();
  assert.match(place.read('data/workflow.db.server'), /^http:\/\/127\.0\.0\.1:\d+\n$/);
  await server.kill(); // what it wrote stays
  const r = place.run(['reload']);
  assert.equal(r.code, 1);
  assert.match(r.err, /tidemill serve.*\[reload\.no_server\]/);
  const named = place.run(['reload', '--listen', '127.0.0.1:1']);
  assert.match(named.err, /at 127\.0\.0\.1:1;.*\[reload\.no_server\]/);
  const other = createServer((req, res) => { res.end('{"hello":"world"}'); });
  await new Promise((done) => { other.listen(0, '127.0.0.1', done); });
  const child = spawn(program, ['reload', '--config', place.config, '--listen',
    `127.0.0.1:${other.address().port}`]);
  let errors = '';
  child.stderr.on('data', (d) => { errors += d; });
  const [code] = await new Promise((done) => { child.on('close', (...ended) => done(ended)); });
  assert.equal(code, 1);
  assert.match(noted(errors), /no tidemill server.*\[reload\.answer\]/);
  other.close();
});

test('the address is taken away at the end, and another server\'s is not', async () => {
  const { place, server } = await serve();
  const second = await new Server(place).start();
  await server.stop();
  assert.equal(place.read('data/workflow.db.server'), `${second.url}\n`);
  await second.stop();
  assert.throws(() => place.read('data/workflow.db.server'), { code: 'ENOENT' });
  place.use_files();
  const third = await new Server(place).start();
  assert.equal(place.read('data/states.server'), `${third.url}\n`);
  await third.stop();
});

test('SIGHUP', async () => {
  const { place, server } = await serve();
  const id = await begin(server), before = await version(server);
  place.script('talk', BROKEN);
  const said = listen(server);
  server.process.kill('SIGHUP');
  await until('the error in the log',
    () => /error .*code=script\.invalid .*talk\/init\.lua:\d+: /.test(said()));
  assert.equal(await version(server), before);
  place.script('talk', script('welcome'));
  server.process.kill('SIGHUP');
  await until('the new version', async () => await version(server) !== before);
  assert.equal(await reply(server, id), 'hello Ann');
  assert.equal(await reply(server, await begin(server)), 'welcome Ann');
  assert.deepEqual(await server.stop(), { code: 0, signal: null });
});

test('serve --watch: whatever way a file changes', async () => {
  const { place, server } = await serve(['--watch']);
  const talk = join(place.dir, 'scripts/talk');
  const greets = (text) => until(text, async () => await reply(server, await begin(server)) === text);
  place.script('talk', script('welcome'));
  await greets('welcome Ann');
  place.script('talk', 'return "oh "', 'word.lua'); // a file that is required
  await greets('oh welcome Ann');
  writeFileSync(join(talk, '.init.lua.swp'), 'what an editor writes');
  writeFileSync(join(talk, 'init.lua~'), script('over')); // then renames over the file
  renameSync(join(talk, 'init.lua~'), join(talk, 'init.lua'));
  await greets('oh over Ann');
  rmSync(join(talk, 'word.lua'));
  mkdirSync(join(talk, 'word'));
  place.script('talk/word', 'return "new "');
  await greets('new over Ann');
  renameSync(talk, join(place.dir, 'aside')); // the folder is replaced by a link to another
  symlinkSync(join(place.dir, 'aside'), talk);
  place.script('talk', script('linked'));
  await greets('new linked Ann');
  const said = listen(server), before = await version(server);
  place.script('talk', BROKEN);
  await until('the error in the log',
    () => /error .*code=script\.invalid .*talk\/init\.lua:\d+: /.test(said()));
  assert.equal(await version(server), before);
  assert.equal(said().match(/script\.invalid/g).length, 1);
  place.script('talk', script('mended'));
  await greets('new mended Ann');
  await server.stop();
});

// Real clients that never rest, on conversations of many versions, while new ones come and bad
// ones are refused.
test('reloads under full load fail no request', async () => {
  const { place, server } = await serve();
  server.agent.maxSockets = 64;
  let over = false, answered = 0;
  const client = async () => {
    while (!over) {
      const id = await begin(server), first = await reply(server, id);
      for (let i = 0; i < 20 && !over; i++) {
        const said = await server.say(id, 'Ann');
        assert.equal(said.status, 200, said.text);
        assert.equal(said.json.replies[0].text, first);
        answered++;
      }
    }
  };
  const clients = Array.from({ length: 64 }, client);
  const words = new Set();
  for (let i = 1; i <= 16; i++) {
    const before = answered;
    place.script('talk', i % 4 === 0 ? BROKEN : script(`word ${i}`));
    const loaded = await server.post('/v1/admin/reload', {});
    assert.equal(loaded.status, i % 4 === 0 ? 500 : 200, loaded.text);
    words.add(await reply(server, await begin(server)));
    await until('more answers', () => answered > before + 64);
  }
  over = true;
  await Promise.all(clients);
  assert.equal(words.size, 12);
  assert.equal((await server.get('/readyz')).status, 200);
  await server.stop();
});
