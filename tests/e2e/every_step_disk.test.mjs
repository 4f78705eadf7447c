// The conversations of every_step_scenario.mjs, cut off at every change that the store makes to its
// disk, in turn: by a kill, and by a loss of power, which takes what was not synced. What comes of
// them, and what the outside has seen, must be the undisturbed run's. STEP_CUTS: at how many changes,
// or `all`, which takes an hour or two.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { Disk } from '../shim/disk.mjs';
import { compare, FLOWS, play, system, World } from './every_step_scenario.mjs';
import { Place, Server } from './host.mjs';

const NIGHTLY = process.env.TIDEMILL_NIGHTLY === '1';
const CUTS = process.env.STEP_CUTS ?? (NIGHTLY ? '100' : '4'); // of each flow

// A host that is there again whenever it has died.
class Host {
  async start(backend) {
    this.world = await new World().start();
    this.place = new Place({ shipped: false, config: { webhooks: this.world.webhooks } });
    this.disk = new Disk(join(this.place.dir, 'disk'), join(this.place.dir, 'state'));
    const data = join(this.disk.root, 'data');
    if (backend === 'file') this.place.use_files(data);
    else this.place.settings.workflow_persistence.sqlite.database_path = join(data, 'workflow.db');
    this.place.save();
    this.place.script('every', system(this.world.url));
    return this.#serve();
  }
  async #serve() {
    this.server = await new Server(this.place).start([], this.disk.env);
    this.death = this.server.ended.then(() => this.over || this.#again());
    return this;
  }
  async #again() {
    this.died = true;
    if (this.loses) this.disk.drop();
    else this.disk.forget();
    return (await this.#serve()).server;
  }
  async play(flow, at, loses) {
    this.died = false;
    this.loses = loses;
    this.disk.cut(at);
    return play(this, flow);
  }
  async stop() {
    this.over = true;
    await this.server.kill();
    this.world.stop();
    this.place.remove();
  }
}

for (const backend of ['sqlite', 'file']) {
  test(`cut off at every change of the disk: ${backend}`, { timeout: 3600000 }, async (t) => {
    const host = await new Host().start(backend);
    t.after(() => host.stop());
    for (const flow of FLOWS) {
      const undisturbed = await host.play(flow, 0);
      const changes = host.disk.calls;
      const step = CUTS === 'all' ? 1 : Math.max(1, Math.floor(changes / Number(CUTS)));
      let runs = 0, deaths = 0;
      for (let at = (step + 1) >> 1; at <= changes; at += step) {
        const loses = runs++ % 2 === 1;
        const one = await host.play(flow, at, loses);
        compare(one, undisturbed, `${loses ? 'power lost' : 'killed'} at change ${at} of ${changes}`);
        deaths += host.died ? 1 : 0;
      }
      t.diagnostic(`${flow}: ${changes} changes, ${runs} runs, ${deaths} deaths`);
      assert.ok(deaths >= runs * 0.7, 'a run makes some changes more or less');
    }
  });
}
