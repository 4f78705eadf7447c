// The conversations of every_step_scenario.mjs on PostgreSQL, with two hosts. The one that is at work is
// killed at every commit in turn, before PostgreSQL hears of it and before its own hearing that it is
// done; at every call, and at every telling of an event. The other one takes over, and what comes of
// it must be the undisturbed run's.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compare, FLOWS, play, system, World } from './every_step_scenario.mjs';
import { Place, Server } from './host.mjs';
import { database, sql } from './own_postgres.mjs';
import { Wire } from './postgres_wire.mjs';

const NIGHTLY = process.env.TIDEMILL_NIGHTLY === '1';
const PAIRS = 4; // that wait for leases beside each other
const EVERY = NIGHTLY ? 1 : 16; // of the points is one at which a host dies

// Two hosts on a database of their own.
class Pair {
  hosts = [{}, {}];
  counts = {};
  cuts = [];
  async start() {
    this.db = database();
    this.world = await new World().start();
    this.world.reach = (kind, n, when) =>
      this.#reach(kind, n, when, kind === 'told' ? this.teller : this.worker);
    this.place = new Place({ shipped: false, config: {
      server: { lease: 1, workers: 1 }, webhooks: this.world.webhooks,
      workflow_persistence: { backend: 'postgres', postgres: { url: this.db.url } } } });
    delete this.place.settings.workflow_persistence.sqlite;
    this.place.save();
    this.place.script('every', system(this.world.url));
    for (const host of this.hosts) {
      host.wire = await new Wire(this.db.url, (kind, when) => this.#commit(host, kind, when)).start();
      await this.#serve(host);
    }
    this.server = this.hosts[0].server;
    return this;
  }
  async #serve(host) {
    host.server = await new Server(this.place)
      .start(['--set', `workflow_persistence.postgres.url=${host.wire.url}`]);
    host.dead = false;
  }
  #commit(host, kind, when) {
    if (host.dead) return true;
    if (kind === 'row' || kind === 'head') this.worker = host;
    if (kind === 'event') this.teller = host;
    if (when === 'before' || kind === 'due') this.counts[kind] = (this.counts[kind] ?? 0) + 1;
    return this.#reach(kind, this.counts[kind] - 1, when, host);
  }
  // Where another death is to follow, the one that has died is there again for it.
  #reach(kind, n, when, host) {
    const [cut] = this.cuts;
    if (kind !== cut?.kind || n !== (cut.at ?? n) || when !== cut.when) return false;
    this.cuts.shift();
    host.dead = true;
    const gone = host.server.kill();
    const other = this.hosts.find((one) => one !== host);
    host.up = this.cuts.length > 0 ? gone.then(() => this.#serve(host)) : gone;
    this.death = gone.then(() => other.up).then(() => other.server);
    return true;
  }
  // The one that has survived is asked next.
  async play(flow, cuts) {
    this.cuts = [...cuts];
    this.counts = {};
    this.death = null;
    const one = await play(this, flow);
    const left = this.cuts.length;
    this.cuts = [];
    for (const host of this.hosts) {
      await host.up;
      if (host.dead) await this.#serve(host);
    }
    return { ...one, left, counts: { ...this.counts, call: one.calls.length, told: one.told.length } };
  }
  // The kinds of rows of each conversation.
  journals() {
    const lines = sql(this.db.url, `SELECT conversation||' '||string_agg(kind::text,',' ORDER BY revision)
      FROM tidemill.journal GROUP BY conversation`).split('\n');
    return new Map(lines.map((line) => line.split(' ')));
  }
  async stop() {
    for (const { server, wire } of this.hosts) {
      await server.kill();
      wire.stop();
    }
    this.world.stop();
    this.place.remove();
    this.db.remove();
  }
}

// Where hosts die, one run for each. What a claim and a deadline cost in commits may be another number
// in another run: then nobody dies there.
function points(counts) {
  const all = [];
  for (const kind of ['row', 'call', 'event', 'told', 'head', 'due'])
    for (let at = 0; at < (counts[kind] ?? 0); at++)
      for (const when of kind === 'due' ? ['after'] : ['before', 'after'])
        all.push({ cuts: [{ kind, at, when }], certain: !['head', 'due'].includes(kind) });
  for (let at = 0; at < counts.call; at++) {
    const taken_over = { kind: 'head', when: at % 2 ? 'before' : 'after' };
    all.push({ cuts: [{ kind: 'call', at, when: 'before' }, taken_over], certain: true });
  }
  return all.filter((_, i) => i % EVERY === EVERY >> 1);
}

const words = (cuts) => cuts.map((c) => `${c.when} ${c.kind} ${c.at ?? ''}`).join(', then ');

// Until nothing is left of `todo`, or somebody has failed.
async function work(pair, flow, todo, undisturbed) {
  const cuts_of = new Map();
  try {
    while (todo.length > 0) {
      const { cuts, certain } = todo.shift();
      const one = await pair.play(flow, cuts);
      compare(one, undisturbed, words(cuts));
      assert.ok(!certain || one.left === 0, `nobody has died ${words(cuts)}`);
      cuts_of.set(one.id, cuts);
    }
    const journals = pair.journals();
    for (const [id, cuts] of cuts_of) assert.equal(journals.get(id), undisturbed.journal, words(cuts));
  } finally {
    todo.length = 0;
  }
}

for (const flow of FLOWS) {
  test(`two hosts, killed at every point: ${flow}`, { timeout: 3600000 }, async (t) => {
    const pairs = await Promise.all(Array.from({ length: PAIRS }, () => new Pair().start()));
    t.after(() => Promise.all(pairs.map((pair) => pair.stop())));
    const undisturbed = await pairs[0].play(flow, []);
    undisturbed.journal = pairs[0].journals().get(undisturbed.id);
    const todo = points(undisturbed.counts), runs = todo.length;
    const ends = await Promise.allSettled(pairs.map((pair) => work(pair, flow, todo, undisturbed)));
    for (const end of ends) if (end.reason) throw end.reason;
    t.diagnostic(`${runs} runs; ${JSON.stringify(undisturbed.counts)}`);
  });
}
