// The conversations of every_step_scenario.mjs. The process is killed at every commit of the journal
// and of the outbox in turn, before and behind it (tests/shim/cut.c), at every call and at every
// telling of an event; what comes of it, and what the outside has seen, must be the undisturbed
// run's. every_step_hosts.test.mjs is the same with two hosts.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { binary, Cut } from '../shim/cut.mjs';
import { cuts, Host, NIGHTLY, part, SEED, work } from './every_step_host.mjs';
import { FLOWS } from './every_step_scenario.mjs';

const HOSTS = NIGHTLY ? 8 : 4; // a host rests for a second after its start
const KINDS = ['row', 'head', 'event', 'call', 'told'];

class Mortal extends Host {
  binary = binary;
  prepare(backend) {
    super.prepare(backend);
    this.commits = new Cut(join(this.place.dir, 'cut'));
    this.env = this.commits.env;
  }
  cut({ kind, at, when }) { this.commits.set(kind, at, when); }
  async play(flow, cut) {
    const one = await super.play(flow, cut);
    const { calls, told } = one;
    return { ...one, counts: { ...this.commits.counts, call: calls.length, told: told.length } };
  }
}

for (const backend of ['sqlite', 'file']) {
  test(`killed at every commit and call: ${backend}`, { timeout: 3600000 }, async (t) => {
    const hosts = await Promise.all(Array.from({ length: HOSTS },
      () => new Mortal().start(backend)));
    t.after(() => Promise.all(hosts.map((host) => host.stop())));
    for (const flow of FLOWS) {
      const undisturbed = await hosts[0].play(flow);
      const todo = part(cuts(undisturbed.counts, KINDS), NIGHTLY ? 1 : 16);
      const runs = todo.length;
      let deaths = 0;
      await work(hosts, flow, todo, undisturbed, (host) => { deaths += host.died ? 1 : 0; });
      t.diagnostic(`TIDEMILL_SEED=${SEED}, ${flow}: ${runs} runs, ${deaths} deaths; `
        + JSON.stringify(undisturbed.counts));
      assert.ok(deaths >= Math.floor(runs * 0.7), 'a run makes some claims more or less');
    }
  });
}
