// Commands disk.so, and takes back what a power cut would: the other half of disk.c.
import { existsSync, linkSync, lstatSync, mkdirSync, openSync, readFileSync, readSync, readdirSync,
  renameSync, rmSync, unlinkSync, writeFileSync, writeSync } from 'node:fs';
import { constants } from 'node:os';
import { dirname, join } from 'node:path';
import { program } from '../e2e/host.mjs';

const PAGE = 4096, SECTOR = 512;
const OPS = { write: 1, sync: 2, create: 4, rename: 8, unlink: 16, truncate: 32, mkdir: 64,
  change: 127, open: 128, read: 256, look: 512 };
const EFFECTS = { fail: 0, torn: 1, short: 2 };
const FAULTS = 4, FAULT_AT = 32, FAULT_SIZE = 64, FOREVER = 0xffffffff;
const KINDS = [null, 'write', 'truncate', 'sync', 'lost', 'create', 'unlink', 'rename', 'mkdir',
  'folder_sync', 'sync_all', 'lost_all'];

export const shim = join(dirname(program), 'tests/disk.so');

// Numbers between 0 and 1 that are the same for the same seed.
export function dice(seed) {
  let s = (Number(seed) * 2654435761 + 1) >>> 0;
  return () => {
    s = (s + 0x6d2b79f5) >>> 0;
    let t = Math.imul(s ^ (s >>> 15), s | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

export class Disk {
  // `root`: the folder whose content depends on this disk; `state`: a folder beside it.
  constructor(root, state) {
    this.root = root;
    this.state = state;
    mkdirSync(root, { recursive: true });
    mkdirSync(join(state, 'saved'), { recursive: true });
    writeFileSync(join(state, 'control'), Buffer.alloc(PAGE));
    this.control = openSync(join(state, 'control'), 'r+');
  }
  get env() {
    return { LD_PRELOAD: shim, TM_DISK_ROOT: this.root, TM_DISK_STATE: this.state };
  }
  #get(at) {
    const word = Buffer.alloc(4);
    readSync(this.control, word, 0, 4, at);
    return word.readUInt32LE();
  }
  #put(at, ...words) {
    const bytes = Buffer.alloc(words.length * 4);
    words.forEach((w, i) => bytes.writeUInt32LE(w, i * 4));
    writeSync(this.control, bytes, 0, bytes.length, at);
  }
  get calls() { return this.#get(0); } // changing calls until now
  cut(at) { this.#put(0, 0, at); } // counts anew; the at-th call kills the program; 0: none
  // Counts anew; before the at-th call the program is stopped (SIGSTOP).
  halt(at) { this.#put(0, 0, 0, at); }
  // `ops`: a list of names in OPS; `after` good calls come first, `count` fail. Up to four at once.
  fault(ops, error, { effect = 'fail', after = 0, count = FOREVER, suffix = '', slot = 0 } = {}) {
    const at = FAULT_AT + slot * FAULT_SIZE;
    const name = Buffer.alloc(40);
    name.write(suffix);
    this.#put(at, 0);
    writeSync(this.control, name, 0, name.length, at + 24);
    this.#put(at + 4, constants.errno[error], EFFECTS[effect], after, count, 0);
    this.#put(at, ops.reduce((sum, op) => sum | OPS[op], 0));
  }
  met(slot = 0) { return this.#get(FAULT_AT + slot * FAULT_SIZE + 20); } // calls that failed
  mend() { for (let i = 0; i < FAULTS; i++) this.#put(FAULT_AT + i * FAULT_SIZE, 0); }

  // The power is gone and back: what was not synced is lost, or, with a seed, any part of it is. No
  // program may run on the disk meanwhile. Says how much there was to lose.
  drop(seed = null) {
    const random = seed === null ? null : dice(seed);
    const log = readLog(join(this.state, 'log'));
    const changed = dropContent(log, this.#inodes(), random);
    const renamed = dropNames(log, join(this.state, 'saved'), random);
    for (const file of walk(this.root))
      if (file.endsWith('-shm') && (random === null || random() < 0.5)) unlinkSync(file);
    this.forget();
    return { changed, renamed };
  }
  // What is there now counts as durable.
  forget() {
    this.mend();
    this.cut(0);
    rmSync(join(this.state, 'log'), { force: true });
    rmSync(join(this.state, 'saved'), { recursive: true, force: true });
    mkdirSync(join(this.state, 'saved'));
  }
  #inodes() {
    const all = [...walk(join(this.state, 'saved')), ...walk(this.root)];
    return new Map(all.map((file) => [lstatSync(file).ino, file]));
  }
}

function walk(folder) {
  return readdirSync(folder, { withFileTypes: true }).flatMap((e) => {
    const path = join(folder, e.name);
    return e.isDirectory() ? walk(path) : [path];
  });
}

function readLog(file) {
  const bytes = existsSync(file) ? readFileSync(file) : Buffer.alloc(0);
  const records = [];
  for (let at = 0; at + 40 <= bytes.length;) {
    const size = bytes.readUInt32LE(at + 4);
    const content = bytes.subarray(at + 40, at + 40 + size);
    const number = (i) => Number(bytes.readBigUInt64LE(at + 8 + 8 * i));
    records.push({ kind: KINDS[bytes.readUInt32LE(at)], inode: number(0), at: number(1),
      length: number(2), old_size: number(3), bytes: content,
      paths: content.toString().split('\0').slice(0, -1) });
    at += 40 + size;
  }
  return records;
}

// ---- content ----

// One change as pieces that lie in one page each; what was beyond the end was zeros.
function pieces(r) {
  const end = r.kind === 'write' ? r.at + r.length : r.at + r.bytes.length;
  const list = [];
  for (let from = r.at; from < end;) {
    const to = Math.min(end, (Math.floor(from / PAGE) + 1) * PAGE);
    const old = Buffer.alloc(to - from);
    old.set(r.bytes.subarray(from - r.at, to - r.at));
    list.push({ at: from, old, page: Math.floor(from / PAGE), lost: false });
    from = to;
  }
  return list;
}

function settle(f) {
  const again = new Set(f.pieces.filter((p) => !p.lost).map((p) => p.page));
  f.pieces = f.pieces.filter((p) => p.lost && !again.has(p.page));
  f.sizes = [];
}

const lose = (f) => { for (const p of f.pieces) p.lost = true; };

// Per inode what no sync has made durable: {pieces, sizes}, oldest first. Pieces that a failed sync
// lost stay, until their page is written and synced again.
function pendingContent(log) {
  const files = new Map();
  for (const r of log) {
    if (r.kind === 'sync_all') for (const f of files.values()) settle(f);
    if (r.kind === 'lost_all') for (const f of files.values()) lose(f);
    if (!['write', 'truncate', 'sync', 'lost'].includes(r.kind)) continue;
    const f = files.get(r.inode) ?? { pieces: [], sizes: [] };
    files.set(r.inode, f);
    if (r.kind === 'write' || r.kind === 'truncate') {
      f.pieces.push(...pieces(r));
      f.sizes.push(r.old_size);
    } else if (r.kind === 'lost') {
      lose(f);
    } else {
      settle(f);
    }
  }
  return files;
}

// How many of a sector's newest changes are taken back.
function depth(random) {
  const r = random();
  if (r < 0.4) return 0;
  if (r < 0.8) return Infinity;
  return 1 + Math.floor(random() * 3);
}

function takeBack(file, pending, random) {
  const sizes = [...pending.sizes, lstatSync(file).size];
  const size = sizes[random === null ? 0 : Math.floor(random() * sizes.length)];
  let content = readFileSync(file);
  const left = new Map(); // per sector
  for (const p of pending.pieces.reverse()) {
    const end = p.at + p.old.length;
    if (content.length < end) content = Buffer.concat([content], end);
    for (let s = Math.floor(p.at / SECTOR); s * SECTOR < end; s++) {
      if (!left.has(s)) left.set(s, random === null ? Infinity : depth(random));
      if (left.get(s) === 0) continue;
      left.set(s, left.get(s) - 1);
      const from = Math.max(p.at, s * SECTOR), to = Math.min(end, (s + 1) * SECTOR);
      p.old.copy(content, from, from - p.at, to - p.at);
    }
  }
  writeFileSync(file, content.length < size ? Buffer.concat([content], size)
    : content.subarray(0, size));
}

function dropContent(log, inodes, random) {
  let changed = 0;
  for (const [inode, pending] of pendingContent(log)) {
    if (pending.pieces.length === 0 && pending.sizes.length === 0) continue;
    takeBack(inodes.get(inode), pending, random);
    changed += pending.pieces.length;
  }
  return changed;
}

// ---- names ----

function undoName(r, saved) {
  const [path, to] = r.paths;
  const inode = (file) => (existsSync(file) ? lstatSync(file).ino : 0);
  if (r.kind === 'create') rmSync(path, { force: true });
  if (r.kind === 'mkdir') rmSync(path, { recursive: true, force: true });
  if (r.kind === 'unlink' && !existsSync(path)) linkSync(join(saved, `${r.inode}`), path);
  if (r.kind !== 'rename' || inode(to) !== r.inode) return;
  renameSync(to, path);
  if (r.at !== 0) linkSync(join(saved, `${r.at}`), to);
}

// A folder's changes reach the disk in their order: some first ones stay.
function dropNames(log, saved, random) {
  const pending = new Map(); // per folder
  log.forEach((r, order) => {
    if (r.kind === 'sync_all') pending.clear();
    if (r.kind === 'folder_sync') pending.delete(r.paths[0]);
    if (!['create', 'unlink', 'rename', 'mkdir'].includes(r.kind)) return;
    const folder = dirname(r.paths.at(-1));
    if (!pending.has(folder)) pending.set(folder, []);
    pending.get(folder).push({ ...r, order });
  });
  const undone = [...pending.values()].flatMap((list) =>
    list.slice(random === null ? 0 : Math.floor(random() * (list.length + 1))));
  for (const r of undone.sort((a, b) => b.order - a.order)) undoName(r, saved);
  return undone.length;
}
