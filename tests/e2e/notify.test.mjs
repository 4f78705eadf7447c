// Hosts on one PostgreSQL that wake each other. Those that must have been told look for what others have
// left once an hour only (`rare`): what they do in time they cannot have found.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createServer } from 'node:http';
import { connect, createServer as listen } from 'node:net';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { Place, program, Server, wait } from './host.mjs';
import { database, OwnPostgres, sql } from './own_postgres.mjs';

const rare = join(dirname(program), 'tests/tidemill_rare_look');

// `ask` waits for an answer; `call` asks the outside for a word to say.
const SYSTEM = (url) => `local tm = require "tidemill"
return tm.system { name = "shop", agents = {
    clerk = { respond = function(ctx)
      local answer, err = ctx:http { method = "POST", url = "${url}", json = {} }
      if not answer then error(err) end
      return "done: " .. ctx.state.item
    end } },
  flows = { tm.ConversationFlow { flow_id = "order", start_step = "ask", steps = {
    tm.ConversationStep { step_id = "ask", step_type = "user_input", prompt = "Order?",
      input_schema = { type = "text" }, save_as = "item", next_steps = { "call" } },
    tm.ConversationStep { step_id = "call", step_type = "agent_response", agent = "clerk",
      prompt = "go", next_steps = { "tell" } },
    tm.ConversationStep { step_id = "tell", step_type = "action", next_steps = { "ask" },
      run = function(ctx) ctx:emit("placed", ctx.state.item) end } } } } }`;

async function until(what, holds) {
  for (let i = 0; !(await holds()); i++) {
    if (i > 6000) throw new Error(`in vain: ${what}`);
    await wait(5);
  }
}

// Hears calls and webhooks; while it is closed calls get no answer.
class World {
  calls = 0;
  told = [];
  held = [];
  closed = false;
  async start() {
    this.server = createServer((req, res) => {
      let body = '';
      req.on('data', (d) => { body += d; });
      req.on('end', () => {
        const status = req.url === '/nobody' ? 503 : 200;
        const answer = () => res.writeHead(status, { 'content-type': 'application/json' }).end('{}');
        if (req.url === '/hook') this.told.push(JSON.parse(body).data);
        if (req.url === '/call') this.calls++;
        if (req.url === '/call' && this.closed) this.held.push(answer);
        else answer();
      });
    });
    await new Promise((done) => this.server.listen(0, '127.0.0.1', done));
    this.server.unref();
    this.url = `http://127.0.0.1:${this.server.address().port}`;
    return this;
  }
  open() {
    this.closed = false;
    for (const answer of this.held.splice(0)) answer();
  }
  stop() {
    this.server.closeAllConnections();
    this.server.close();
  }
}

async function make(t, url, postgres = {}) {
  const world = await new World().start();
  const place = new Place({ shipped: false, config: {
    server: { lease: '1h', workers: 1 },
    webhooks: { url: `${world.url}/hook`, secret: 's' },
    workflow_persistence: { backend: 'postgres', postgres: { url, ...postgres } } } });
  delete place.settings.workflow_persistence.sqlite;
  place.save();
  place.script('shop', SYSTEM(`${world.url}/call`));
  const hosts = [];
  t.after(async () => {
    await Promise.all(hosts.map((host) => host.kill()));
    world.stop();
    place.remove();
  });
  const serve = async (binary) => {
    hosts.push(await new Server(place, binary).start());
    return hosts.at(-1);
  };
  return { world, place, serve };
}

const LISTENERS = "FROM pg_stat_activity WHERE application_name='tidemill' AND query ~ '(LISTEN|NOTIFY) '"
  + ' AND pid<>pg_backend_pid()';
const listeners = (url) => Number(sql(url, `SELECT count(*) ${LISTENERS}`));
const wants = (url, id) => sql(url, `SELECT count(*) ${LISTENERS} AND query LIKE '%want/${id}%'`) !== '0';

// Both are asked the same while the turn runs in the first; the second answers as soon as the turn has
// ended, and takes the next message then.
async function repeated_elsewhere({ world }, a, b, wanted) {
  const id = (await a.begin('shop', 'order')).json.conversation_id;
  const calls = world.calls, key = { 'idempotency-key': 'k' };
  world.closed = true;
  const first = a.say(id, 'one', key);
  await until('the call', () => world.calls > calls);
  const again = b.say(id, 'one', key), next = b.say(id, 'two');
  await wanted(id);
  world.open();
  const answer = await first;
  assert.equal(answer.status, 200, answer.text);
  assert.equal((await again).text, answer.text);
  const two = await next;
  assert.deepEqual(two.json.replies?.map((r) => r.text), ['done: two'], two.text);
  return id;
}

test('a request that waits for another host hears of its end', async (t) => {
  const db = database();
  t.after(db.remove);
  const one = await make(t, db.url);
  const [a, b] = [await one.serve(rare), await one.serve(rare)];
  await until('both listen', () => listeners(db.url) === 2);
  const told = (id) => until('the word', () => wants(db.url, id));
  await repeated_elsewhere(one, a, b, told);
  assert.doesNotMatch(a.errors + b.errors, /once a second/);
});

test('what a command leaves is delivered when it ends', async (t) => {
  const db = database();
  t.after(db.remove);
  const one = await make(t, db.url);
  const server = await one.serve(rare);
  const id = (await server.begin('shop', 'order')).json.conversation_id;
  await server.say(id, 'a book');
  await until('its own event', () => one.world.told.includes('a book')); // it has looked by now
  await until('it listens', () => listeners(db.url) === 1);
  const nobody = ['--set', `webhooks.url=${one.world.url}/nobody`]; // hears the command's own events
  const chat = spawn(program, ['chat', '--resume', id, '--config', one.place.config, ...nobody],
    { cwd: one.place.dir, env: { ...process.env, NO_COLOR: '1' }, stdio: ['pipe', 'pipe', 'inherit'] });
  let out = '';
  chat.stdout.on('data', (d) => { out += d; });
  chat.stdin.end('a pen\n');
  assert.equal(await new Promise((done) => chat.on('close', done)), 0);
  assert.match(out, /done: a pen/);
  await until('the event', () => one.world.told.includes('a pen'));
});

test('what a host gives back when it stops is taken up', async (t) => {
  const db = database();
  t.after(db.remove);
  const one = await make(t, db.url);
  const [a, b] = [await one.serve(rare), await one.serve(rare)];
  await until('both listen', () => listeners(db.url) === 2);
  const id = (await a.begin('shop', 'order')).json.conversation_id;
  one.world.closed = true;
  const said = a.say(id, 'one').catch(() => null);
  await until('the call', () => one.world.calls === 1);
  a.process.kill('SIGTERM');
  await until('the call again', () => one.world.calls === 2);
  one.world.open();
  await until('the turn', async () =>
    (await b.get(`/v1/conversations/${id}`)).json.status === 'waiting_input');
  await said;
  assert.equal((await a.ended).code, 0);
});

test('a connection that was cut, and a server that was restarted, are found again', async (t) => {
  const postgres = await new OwnPostgres().make();
  t.after(() => postgres.remove());
  const { url } = postgres;
  const one = await make(t, url);
  const [a, b] = [await one.serve(rare), await one.serve(rare)];
  await until('both listen', () => listeners(url) === 2);
  const told = (id) => until('the word', () => wants(url, id));
  const cut = sql(url, `SELECT pid ${LISTENERS}`).split('\n');
  sql(url, `SELECT pg_terminate_backend(pid) ${LISTENERS}`);
  await until('both again', () => listeners(url) === 2
    && !sql(url, `SELECT pid ${LISTENERS}`).split('\n').some((pid) => cut.includes(pid)));
  await repeated_elsewhere(one, a, b, told);
  postgres.kill();
  await until('not ready', async () => (await a.get('/readyz')).status === 503);
  postgres.start();
  for (const host of [a, b])
    await until('ready', async () => (await host.get('/readyz')).status === 200);
  await until('both after a restart', () => listeners(url) === 2);
  await repeated_elsewhere(one, a, b, told);
});

test('without words it is found by looking', async (t) => {
  const db = database();
  t.after(db.remove);
  const one = await make(t, db.url, { notify: false });
  const [a, b] = [await one.serve(program), await one.serve(program)];
  await repeated_elsewhere(one, a, b, () => wait(500));
  assert.equal(listeners(db.url), 0);
});

// LISTEN is a word that it does not know: the same number of bytes, and nonsense.
async function ignorant(t, target) {
  const { hostname, port } = new URL(target);
  const sockets = new Set();
  const server = listen((client) => {
    const behind = connect(Number(port), hostname);
    client.on('data', (d) => behind.write(Buffer.from(d.toString('latin1').replace('LISTEN', 'LISTON'), 'latin1')));
    behind.on('data', (d) => client.write(d));
    for (const [one, other] of [[client, behind], [behind, client]]) {
      sockets.add(one);
      one.on('error', () => {});
      one.on('close', () => other.destroy());
    }
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  t.after(() => {
    for (const one of sockets) one.destroy();
    server.close();
  });
  const url = new URL(target);
  url.port = server.address().port;
  return `${url}?sslmode=disable&gssencmode=disable`;
}

test('a server that carries no words is no fault', async (t) => {
  const db = database();
  t.after(db.remove);
  const one = await make(t, await ignorant(t, db.url));
  const [a, b] = [await one.serve(program), await one.serve(program)];
  await until('it is noted', () => [a, b].every((host) => host.errors.includes('once a second')));
  await repeated_elsewhere(one, a, b, () => wait(500));
  for (const host of [a, b]) {
    const notes = host.errors.split('\n').filter((line) => line.includes('once a second'));
    assert.equal(notes.length, 1, host.errors);
    assert.match(notes[0], /info/i);
    assert.equal((await host.get('/readyz')).status, 200);
  }
});
