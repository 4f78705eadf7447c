// A real tidemill process for a test: its own folder, a free port. What a failed test leaves keeps
// no file from ending, and is cleared away when the file ends.
import { spawn, spawnSync } from 'node:child_process';
import { Agent, createServer, request } from 'node:http';
import { appendFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const NIGHTLY = process.env.TIDEMILL_NIGHTLY === '1';
const FILE_LIMIT_MS = NIGHTLY ? 7200000 : 600000, REQUEST_LIMIT_MS = 60000;
const left = new Set(); // functions that clear away what a test has not

const clear = () => {
  for (const one of [...left].reverse()) one();
  left.clear();
};
process.on('exit', clear);
setTimeout(() => {
  console.error(`not over after ${FILE_LIMIT_MS / 1000} s`);
  process.exit(1);
}, FILE_LIMIT_MS).unref();

const here = dirname(fileURLToPath(import.meta.url));
export const root = resolve(here, '../..');
export const program = resolve(root, process.env.TIDEMILL ?? 'build/tidemill');

// Notes the error codes in what a process said, for `make check`; see tests/provoke.c.
export const noted = (text) => {
  const file = process.env.TIDEMILL_PROVOKED;
  const codes = file ? text.matchAll(/"code":"([a-z_]+\.[a-z_]+)"|\[([a-z_]+\.[a-z_]+)\]$/gm) : [];
  for (const [, member, bracketed] of codes) appendFileSync(file, `${member ?? bracketed}\n`);
  return text;
};

// A folder with a configuration and the given systems; removed by `remove`.
export class Place {
  constructor({ shipped = true, config = {} } = {}) {
    this.dir = mkdtempSync(join(tmpdir(), 'tidemill-e2e-'));
    left.add(this.clear = () => rmSync(this.dir, { recursive: true, force: true }));
    this.config = join(this.dir, 'agent_config.yaml');
    const scripts = [];
    if (shipped) scripts.push(join(root, 'scripts'));
    mkdirSync(join(this.dir, 'scripts'));
    scripts.push(join(this.dir, 'scripts'));
    this.settings = {
      scripts, server: { listen: '127.0.0.1:0', ...config.server },
      workflow_persistence: {
        backend: 'sqlite',
        sqlite: { database_path: join(this.dir, 'data/workflow.db') },
        ...config.workflow_persistence,
      },
      ...Object.fromEntries(Object.entries(config).filter(
        ([k]) => !['server', 'workflow_persistence'].includes(k))),
    };
    this.save();
  }
  // A folder of logs instead of a database.
  use_files(folder = join(this.dir, 'data/states')) {
    this.settings.workflow_persistence = { backend: 'file', file: { storage_directory: folder } };
    this.save();
  }
  save() { writeFileSync(this.config, JSON.stringify(this.settings, null, 2)); } // JSON is YAML
  get database() { return join(this.dir, 'data/workflow.db'); }
  script(system, text, file = 'init.lua') {
    mkdirSync(join(this.dir, 'scripts', system), { recursive: true });
    writeFileSync(join(this.dir, 'scripts', system, file), text);
  }
  read(file) { return readFileSync(join(this.dir, file), 'utf8'); }
  run(args, { input = '', env = {}, timeout = 20000 } = {}) {
    const r = spawnSync(program, [...args, '--config', this.config],
      { cwd: this.dir, input, env: { ...process.env, NO_COLOR: '1', ...env }, encoding: 'utf8',
        timeout, killSignal: 'SIGKILL' });
    return { code: r.status, signal: r.signal, out: noted(r.stdout), err: noted(r.stderr) };
  }
  remove() { this.clear(); left.delete(this.clear); }
}

export class Server {
  constructor(place, binary = program) {
    this.place = place;
    this.binary = binary;
  }
  // Resolves when the process says that it listens; rejects with its errors when it ends before.
  // `log`: a descriptor that takes what it would say on stderr.
  async start(args = [], env = {}, { descriptors = '', log = 'pipe' } = {}) {
    const limit = descriptors ? `ulimit -n ${descriptors} && ` : '';
    const child = this.process = spawn('sh', ['-c', `${limit}exec "$@"`, 'sh', this.binary, 'serve',
      '--config', this.place.config, ...args],
      { cwd: this.place.dir, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', log] });
    const clear = () => child.kill('SIGKILL');
    left.add(clear);
    this.errors = '';
    child.stderr?.on('data', (d) => { this.errors += d; });
    this.end = new Promise((done) => {
      child.on('exit', (code, signal) => {
        left.delete(clear);
        done({ code, signal });
      });
    });
    this.agent = new Agent({ keepAlive: true });
    let out = '';
    this.url = await new Promise((ok, fail) => {
      child.stdout.on('data', (d) => {
        out += d;
        const m = out.match(/^listening on (http:\S+)$/m);
        if (m) ok(m[1]);
      });
      this.end.then((e) => fail(new Error(`ended ${JSON.stringify(e)}: ${this.errors}`)));
    });
    for (const one of [child, child.stdout, child.stderr]) one?.unref();
    return this;
  }
  get ended() { this.process.ref(); return this.end; } // {code, signal}
  async kill() { this.process.kill('SIGKILL'); return this.ended; }
  async stop() { this.process.kill('SIGTERM'); return this.ended; }
  // By node:http: the fetch of Node 18 never settles when the server dies at the wrong moment.
  async raw(method, path, body, headers = {}) {
    const sent = typeof body === 'string' || body instanceof Uint8Array || body === undefined
      ? body : JSON.stringify(body);
    const { res, text } = await new Promise((ok, fail) => {
      const req = request(this.url + path, { method, agent: this.agent, headers: {
        ...(sent === undefined ? {} : {
          'content-type': 'application/json', 'content-length': Buffer.byteLength(sent) }),
        ...headers } });
      req.setTimeout(REQUEST_LIMIT_MS, () => req.destroy(new Error(`no answer to ${path}`)));
      req.on('error', fail);
      req.on('response', (res) => {
        const parts = [];
        res.on('data', (d) => parts.push(d));
        res.on('error', fail);
        res.on('end', () => ok({ res, text: Buffer.concat(parts).toString() }));
      });
      req.end(sent);
    });
    let json = null;
    try { json = JSON.parse(noted(text)); } catch { /* the test looks at text */ }
    return { status: res.statusCode, type: res.headers['content-type'] ?? null,
      headers: res.headers, text, json };
  }
  get(path, headers) { return this.raw('GET', path, undefined, headers); }
  post(path, body, headers) { return this.raw('POST', path, body, headers); }
  begin(system, flow_id, extra = {}, headers = {}) {
    return this.post('/v1/conversations', { system, flow_id, ...extra }, headers);
  }
  say(id, input, headers = {}) {
    return this.post(`/v1/conversations/${id}/messages`, { input }, headers);
  }
}

// A server outside: answers after `delay()` ms, remembers every request it got.
export class Outside {
  constructor(delay = () => 0) { this.delay = delay; this.requests = []; }
  async start() {
    this.server = createServer((req, res) => {
      let body = '';
      req.on('data', (d) => { body += d; });
      req.on('end', () => {
        this.requests.push({ url: req.url, key: req.headers['idempotency-key'], body,
          method: req.method });
        setTimeout(() => {
          res.setHeader('content-type', 'application/json');
          res.end(JSON.stringify({ n: this.requests.length, path: req.url }));
        }, this.delay(req.url));
      });
    });
    this.server.keepAliveTimeout = 1000;
    left.add(this.clear = () => {
      this.server.closeAllConnections();
      this.server.close();
    });
    await new Promise((done) => this.server.listen(0, '127.0.0.1', done));
    this.server.unref();
    this.url = `http://127.0.0.1:${this.server.address().port}`;
    return this;
  }
  async stop() {
    const closed = new Promise((done) => this.server.once('close', done));
    this.clear();
    left.delete(this.clear);
    return closed;
  }
}

export const wait = (ms) => new Promise((done) => setTimeout(done, ms));
