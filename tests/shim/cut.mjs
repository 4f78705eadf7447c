// Says at which commit a host of build/tests/tidemill_cut dies: the other half of cut.c.
import { openSync, readSync, writeFileSync, writeSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { program } from '../e2e/host.mjs';

const KINDS = ['row', 'head', 'event'], SIZE = 24;

export const binary = join(dirname(program), 'tests/tidemill_cut');

export class Cut {
  constructor(file) {
    this.file = file;
    writeFileSync(file, Buffer.alloc(SIZE));
    this.page = openSync(file, 'r+');
  }
  get env() { return { TM_CUT: this.file }; }
  // Counts anew; the at-th of this kind, from 0, is the last one. Without a kind: nobody dies.
  set(kind, at, when) {
    const words = Buffer.alloc(SIZE);
    if (KINDS.includes(kind)) {
      [KINDS.indexOf(kind), at + 1, when === 'after' ? 1 : 0]
        .forEach((word, i) => words.writeUInt32LE(word, 12 + 4 * i));
    }
    writeSync(this.page, words, 0, SIZE, 0);
  }
  get counts() {
    const words = Buffer.alloc(SIZE);
    readSync(this.page, words, 0, SIZE, 0);
    return Object.fromEntries(KINDS.map((kind, i) => [kind, words.readUInt32LE(4 * i)]));
  }
}
