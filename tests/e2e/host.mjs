// A real tidemill process for a test: its own folder, a free port, killed at the end.
import { spawn, spawnSync } from 'node:child_process';
import { createServer } from 'node:http';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
export const root = resolve(here, '../..');
export const program = resolve(root, process.env.TIDEMILL ?? 'build/tidemill');

// A folder with a configuration and the given systems; removed by `remove`.
export class Place {
  constructor({ shipped = true, config = {} } = {}) {
    this.dir = mkdtempSync(join(tmpdir(), 'tidemill-e2e-'));
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
    writeFileSync(this.config, JSON.stringify(this.settings, null, 2)); // JSON is YAML
  }
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
    return { code: r.status, signal: r.signal, out: r.stdout, err: r.stderr };
  }
  remove() { rmSync(this.dir, { recursive: true, force: true }); }
}

export class Server {
  constructor(place) { this.place = place; }
  // Resolves when the process says that it listens; rejects with its errors when it ends before.
  async start(args = [], env = {}) {
    this.process = spawn(program, ['serve', '--config', this.place.config, ...args],
      { cwd: this.place.dir, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
    this.errors = '';
    this.process.stderr.on('data', (d) => { this.errors += d; });
    this.ended = new Promise((done) => {
      this.process.on('exit', (code, signal) => done({ code, signal }));
    });
    let out = '';
    this.url = await new Promise((ok, fail) => {
      this.process.stdout.on('data', (d) => {
        out += d;
        const m = out.match(/^listening on (http:\S+)$/m);
        if (m) ok(m[1]);
      });
      this.ended.then((e) => fail(new Error(`ended ${JSON.stringify(e)}: ${this.errors}`)));
    });
    return this;
  }
  async kill() { this.process.kill('SIGKILL'); return this.ended; }
  async stop() { this.process.kill('SIGTERM'); return this.ended; }
  async raw(method, path, body, headers = {}) {
    const sent = typeof body === 'string' || body instanceof Uint8Array || body === undefined
      ? body : JSON.stringify(body);
    const r = await fetch(this.url + path, { method, body: sent, headers:
      { ...(sent === undefined ? {} : { 'content-type': 'application/json' }), ...headers } });
    const text = await r.text();
    let json = null;
    try { json = JSON.parse(text); } catch { /* the test looks at text */ }
    return { status: r.status, type: r.headers.get('content-type'), headers: r.headers, text, json };
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
    await new Promise((done) => this.server.listen(0, '127.0.0.1', done));
    this.url = `http://127.0.0.1:${this.server.address().port}`;
    return this;
  }
  stop() { this.server.closeAllConnections?.(); return new Promise((d) => this.server.close(d)); }
}

export const wait = (ms) => new Promise((done) => setTimeout(done, ms));
