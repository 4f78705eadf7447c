// PostgreSQL for tests: a server of a test's own that it may kill, and databases on the one of
// tests/servers.sh.
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, chownSync, copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Disk, shim } from '../shim/disk.mjs';

export const sql = (url, text) => execFileSync('psql', [url, '-AtqX', '-v', 'ON_ERROR_STOP=1', '-c', text],
  { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] }).trim();

let made = 0;
// The URL of an empty database, and what removes it.
export const database = () => {
  const url = process.env.TIDEMILL_TEST_POSTGRES;
  if (!url) throw new Error('TIDEMILL_TEST_POSTGRES is not set: run this through tests/servers.sh');
  const name = `e${process.pid}_${made++}`;
  sql(url, `CREATE DATABASE ${name}`);
  return { url: url.replace(/[^/]*$/, name), remove: () => sql(url, `DROP DATABASE ${name} WITH (FORCE)`) };
};

const freePort = () => new Promise((done) => {
  const server = createServer().listen(0, '127.0.0.1', () => {
    const { port } = server.address();
    server.close(() => done(port));
  });
});

export class OwnPostgres {
  // initdb refuses root: then it runs as the user that Debian's package made. `failing`: the folder of
  // its data that lies on a disk that fails (`disk`).
  async make({ failing } = {}) {
    this.port = await freePort();
    this.dir = mkdtempSync(join(tmpdir(), 'tidemill-pg-'));
    const line = 'find /usr/lib/postgresql -name initdb -path "*/bin/*" | sort -V | tail -n 1';
    this.bin = execFileSync('sh', ['-c', line], { encoding: 'utf8' }).trim().replace(/\/initdb$/, '');
    this.as = {};
    chmodSync(this.dir, 0o755);
    if (process.getuid() === 0) {
      const id = (flag) => Number(execFileSync('id', [flag, 'postgres'], { encoding: 'utf8' }));
      this.as = { uid: id('-u'), gid: id('-g') };
      chownSync(this.dir, this.as.uid, this.as.gid);
    }
    this.run('initdb', ['-D', 'data', '-U', 'tidemill', '-A', 'trust', '-E', 'UTF8', '--locale=C', '--no-sync']);
    if (failing) this.place_on_disk(join(this.dir, 'data', failing));
    this.url = `postgresql://tidemill@127.0.0.1:${this.port}/postgres`;
    process.on('exit', this.clear = () => this.remove());
    return this.start();
  }
  place_on_disk(folder) {
    const state = join(this.dir, 'state'), mine = join(state, 'disk.so');
    this.disk = new Disk(folder, state);
    copyFileSync(shim, mine); // where that user may read it
    this.env = { ...process.env, ...this.disk.env, LD_PRELOAD: mine };
    for (const name of ['', 'saved', 'control'])
      if (this.as.uid) chownSync(join(state, name), this.as.uid, this.as.gid);
  }
  get settings() { return { backend: 'postgres', postgres: { url: this.url } }; }
  get log() { return readFileSync(join(this.dir, 'log'), 'utf8'); }
  run(name, args) {
    const r = spawnSync(join(this.bin, name), args,
      { cwd: this.dir, ...this.as, env: this.env, encoding: 'utf8', stdio: ['ignore', 'ignore', 'inherit'] });
    if (r.status !== 0) throw new Error(`${name} ended with ${r.status}`);
  }
  start() {
    this.run('pg_ctl', ['-s', '-w', '-t', '60', '-D', 'data', '-l', 'log', '-o',
      `-h 127.0.0.1 -p ${this.port} -k '' -c shared_buffers=16MB`, 'start']);
    return this;
  }
  // All its processes, the server's own last.
  processes() {
    const file = join(this.dir, 'data/postmaster.pid');
    const server = existsSync(file) ? Number(readFileSync(file, 'utf8').split('\n')[0]) : 0;
    if (!(server > 1)) return [];
    const r = spawnSync('ps', ['-o', 'pid=', '--ppid', String(server)], { encoding: 'utf8' });
    return [...r.stdout.trim().split(/\s+/).filter(Boolean).map(Number), server];
  }
  signal(name) {
    for (const pid of this.processes().reverse()) {
      try { process.kill(pid, name); } catch { /* it has gone */ }
    }
  }
  kill() {
    this.signal('SIGSTOP');
    const all = this.processes();
    this.signal('SIGKILL');
    for (const pid of all) {
      while (spawnSync('kill', ['-0', String(pid)], { stdio: 'ignore' }).status === 0);
    }
  }
  remove() {
    this.kill();
    rmSync(this.dir, { recursive: true, force: true });
    process.off('exit', this.clear);
  }
}
