// The conversations of every_step_scenario.mjs. The process is killed at every call in turn, before and
// after its answer; what comes of it, and what the outside has seen, must be the undisturbed run's.
// every_step_hosts.test.mjs is the same with two hosts, and at every commit.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Place, Server } from './host.mjs';
import { compare, FLOWS, play, system, World } from './every_step_scenario.mjs';

const NIGHTLY = process.env.TIDEMILL_NIGHTLY === '1';

async function killed_at(state, flow, cut) {
  let next = state.death = null;
  state.world.reach = (kind, n, when) => {
    if (next || kind !== cut.kind || n !== cut.at || when !== cut.when) return false;
    next = state.death = state.server.kill().then(() => new Server(state.place).start());
    return true;
  };
  const one = await play(state, flow);
  assert.ok(next);
  state.server = await next; // perhaps nobody has asked it since
  return one;
}

for (const backend of ['sqlite', 'file']) {
  test(`killed at every call: ${backend}`, { timeout: 600000 }, async (t) => {
    const world = await new World().start();
    const place = new Place({ shipped: false, config: { webhooks: world.webhooks } });
    if (backend === 'file') place.use_files();
    place.script('every', system(world.url));
    const state = { world, place, server: await new Server(place).start() };
    t.after(async () => { await state.server.kill(); world.stop(); place.remove(); });
    for (const flow of FLOWS) {
      state.world.reach = () => false;
      const undisturbed = await play(state, flow);
      for (let at = 0; at < undisturbed.calls.length; at++) {
        for (const when of NIGHTLY ? ['before', 'after'] : [at % 2 ? 'before' : 'after']) {
          const one = await killed_at(state, flow, { kind: 'call', at, when });
          compare(one, undisturbed, `killed ${when} call ${at}, ${undisturbed.calls[at].name}`);
        }
      }
    }
  });
}
