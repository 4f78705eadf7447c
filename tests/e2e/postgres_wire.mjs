// Stands between a host and PostgreSQL and passes everything on, frame by frame. `reach(kind, when)` is
// asked before a commit is passed on, and before its answer is; where it says true the host is dead
// and nothing passes any more. The kinds:
//   row    what a turn has done           event  an event is taken to be sent, or was
//   head   a claim, a lease, a deadline   due    deadlines are taken (their answer only)
import { connect, createServer } from 'node:net';

const KINDS = { START: 'row', START_EVENTS: 'row', TURN: 'row', TURN_ANSWER: 'row', TURN_EVENTS: 'row',
  TOUCH: 'head', TAKE_EVENTS: 'event', DROP_EVENT: 'event', SETTLE_EVENT: 'event' };

// The first frame of a client has no type.
function* frames(stream, chunk) {
  stream.rest = Buffer.concat([stream.rest, chunk]);
  for (;;) {
    const head = stream.typed ? 1 : 0, { rest } = stream;
    if (rest.length < head + 4) return;
    const size = head + rest.readUInt32BE(head);
    if (rest.length < size) return;
    stream.rest = rest.subarray(size);
    stream.typed = true;
    yield rest.subarray(0, size);
  }
}

// Of a prepared statement that is to run: behind the name of a portal.
function statement(frame) {
  if (frame[0] !== 66) return null; // 'B'
  const from = frame.indexOf(0, 5) + 1;
  return frame.toString('latin1', from, frame.indexOf(0, from));
}

// A row that says how many there were: none.
const is_zero = (frame) => frame.readUInt16BE(5) === 1 && frame.readInt32BE(7) === 8
  && frame.readBigInt64BE(11) === 0n;

// One connection, and what its transaction does.
class Link {
  constructor(client, server, reach) {
    Object.assign(this, { client, server, reach, ran: new Set(), rows: 0, answer: null, dead: false });
    const up = { rest: Buffer.alloc(0), typed: false }, down = { rest: Buffer.alloc(0), typed: true };
    client.on('data', (d) => { for (const f of frames(up, d)) this.#request(f); });
    server.on('data', (d) => { for (const f of frames(down, d)) this.#reply(f); });
    for (const [one, other] of [[client, server], [server, client]]) {
      one.setNoDelay(true);
      one.on('error', () => {});
      one.on('close', () => other.destroy());
    }
  }
  #cut(kind, when) {
    this.dead = this.dead || this.reach(kind, when);
    return this.dead;
  }
  #request(frame) {
    const name = statement(frame);
    if (name === 'BEGIN' || name === 'TAKE_DUE') {
      this.ran.clear();
      this.rows = 0;
    }
    if (name) this.ran.add(name);
    if (name === 'TAKE_DUE') this.answer = 'due';
    if (name === 'COMMIT') this.answer = this.#kind();
    if (name === 'COMMIT' && this.answer) this.#cut(this.answer, 'before');
    if (!this.dead) this.server.write(frame);
  }
  // Null: nothing comes of it. The first row of a transaction is the writer's number.
  #kind() {
    if (this.rows < 2) return null;
    return Object.entries(KINDS).find(([name]) => this.ran.has(name))?.[1] ?? null;
  }
  #reply(frame) {
    if (frame[0] === 68 && !is_zero(frame)) this.rows++; // 'D'
    if (frame[0] === 67 && this.answer) { // 'C': it is done
      const kind = this.answer;
      this.answer = null;
      if (kind !== 'due' || this.rows > 0) this.#cut(kind, 'after');
    }
    if (!this.dead) this.client.write(frame);
  }
}

export class Wire {
  constructor(url, reach) {
    this.target = new URL(url);
    this.reach = reach;
  }
  async start() {
    const { hostname, port } = this.target;
    this.server = createServer((client) => new Link(client, connect(Number(port), hostname), this.reach));
    await new Promise((done) => this.server.listen(0, '127.0.0.1', done));
    this.server.unref();
    const url = new URL(this.target);
    url.port = this.server.address().port;
    this.url = `${url}?sslmode=disable&gssencmode=disable`;
    return this;
  }
  stop() { this.server.close(); }
}
