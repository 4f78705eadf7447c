// The conversations of every_step_scenario.mjs on PostgreSQL, with two hosts. The one that is at work is
// killed at every commit in turn, before PostgreSQL hears of it and before its own hearing that it is
// done; at every call, and at every telling of an event. The other one takes over, and what comes of
// it must be the undisturbed run's.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cuts, NIGHTLY, part, SEED, work } from './every_step_host.mjs';
import { FLOWS, play, World } from './every_step_scenario.mjs';
import { system } from './every_step_system.mjs';
import { Place, Server } from './host.mjs';
import { database, sql } from './own_postgres.mjs';
import { Wire } from './postgres_wire.mjs';

const PAIRS = NIGHTLY ? 6 : 4; // that wait for leases beside each other

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
  async servers() {
    await Promise.all(this.hosts.map((host) => host.up));
    return this.hosts.filter((host) => !host.dead).map((host) => host.server);
  }
  // `cut`: { kind, at, when, then }, or nothing. The one that has survived is asked next.
  async play(flow, cut) {
    this.cuts = [cut, cut?.then].filter(Boolean);
    this.counts = {};
    this.death = null;
    const one = await play(this, flow);
    const left = this.cuts.length;
    this.cuts = [];
    for (const host of this.hosts) {
      await host.up;
      if (host.dead) await this.#serve(host);
    }
    const { calls, told } = one;
    return { ...one, left, counts: { ...this.counts, call: calls.length, told: told.length } };
  }
  // The kinds of rows of each conversation.
  journals({ ids }) {
    const lines = sql(this.db.url, `SELECT conversation||' '||string_agg(kind::text,',' ORDER BY revision)
      FROM tidemill.journal GROUP BY conversation`).split('\n');
    const kinds = new Map(lines.map((line) => line.split(' ')));
    return ids.map((id) => kinds.get(id));
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
// in another run, and nobody answers the branch that loses: then nobody dies there.
function points({ counts, calls }) {
  const races = ({ kind, at }) => kind === 'call' && ['late', 'won'].includes(calls[at].name);
  const all = cuts(counts, ['row', 'call', 'event', 'told', 'head', 'due'])
    .filter(({ kind, when }) => kind !== 'due' || when === 'after')
    .map((cut) => ({ ...cut, certain: !['head', 'due'].includes(cut.kind) && !races(cut) }));
  const taken_over = cuts(counts, ['call']).filter(({ when }) => when === 'before')
    .map((cut) => ({ ...cut, certain: true,
      then: { kind: 'head', when: cut.at % 2 ? 'before' : 'after' } }));
  return [...all, ...taken_over];
}

for (const flow of FLOWS) {
  test(`two hosts, killed at every point: ${flow}`, { timeout: 3600000 }, async (t) => {
    const pairs = await Promise.all(Array.from({ length: PAIRS }, () => new Pair().start()));
    t.after(() => Promise.all(pairs.map((pair) => pair.stop())));
    const undisturbed = await pairs[0].play(flow);
    const kinds = pairs[0].journals(undisturbed);
    const todo = part(points(undisturbed), NIGHTLY ? 1 : 16), runs = todo.length;
    await work(pairs, flow, todo, undisturbed, (pair, one, cut, where) => {
      assert.deepEqual(pair.journals(one), kinds, where);
      assert.ok(!cut.certain || one.left === 0, `nobody has died ${where}`);
    });
    t.diagnostic(`TIDEMILL_SEED=${SEED}, ${runs} runs; ${JSON.stringify(undisturbed.counts)}`);
  });
}
