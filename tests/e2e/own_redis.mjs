// A redis-server of a test's own, which it may kill and start again, also on a disk that fails (`disk`).
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Disk } from '../shim/disk.mjs';
import { wait } from './host.mjs';

export class OwnRedis {
  constructor({ appendfsync = 'always' } = {}) {
    this.dir = mkdtempSync(join(tmpdir(), 'tidemill-redis-'));
    this.disk = new Disk(join(this.dir, 'data'), join(this.dir, 'state'));
    this.appendfsync = appendfsync;
  }
  async start() {
    this.port ??= await new Promise((ok) => {
      const s = createServer().listen(0, '127.0.0.1', () => {
        const { port } = s.address();
        s.close(() => ok(port));
      });
    });
    const child = this.process = spawn('redis-server', ['--bind', '127.0.0.1', '--port', this.port,
      '--dir', this.disk.root, '--save', '', '--appendonly', 'yes', '--appendfsync', this.appendfsync],
      { stdio: 'ignore', env: { ...process.env, ...this.disk.env } });
    const clear = () => child.kill('SIGKILL');
    process.on('exit', clear);
    this.running = true;
    this.end = new Promise((ok) => {
      child.on('exit', () => {
        this.running = false;
        process.off('exit', clear);
        ok();
      });
    });
    while (this.running && !(await this.answers())) await wait(20);
    return this;
  }
  // Loaded, and answering: a PING gets its PONG.
  answers() {
    return new Promise((ok) => {
      const s = connect(this.port, '127.0.0.1', () => s.write('PING\r\n'));
      s.on('data', (d) => { s.destroy(); ok(d.toString().startsWith('+PONG')); });
      s.on('close', () => ok(false));
      s.on('error', () => ok(false));
    });
  }
  get settings() {
    return { backend: 'redis', redis: { host: '127.0.0.1', port: this.port } };
  }
  async kill() { this.process.kill('SIGKILL'); await this.end; }
  async remove() { await this.kill(); rmSync(this.dir, { recursive: true, force: true }); }
}
