// The conversations of every_step_scenario.mjs, cut off at changes that the store makes to its disk,
// by a kill and by a loss of power, by turns: that takes what was not synced. What comes of them, and
// what the outside has seen, must be the undisturbed run's.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { Disk } from '../shim/disk.mjs';
import { Host, NIGHTLY, part, SEED, work } from './every_step_host.mjs';
import { FLOWS } from './every_step_scenario.mjs';

const HOSTS = 4;
const SHARE = NIGHTLY ? 16 : 512; // one of so many changes

class Forgetful extends Host {
  prepare(backend) {
    this.disk = new Disk(join(this.place.dir, 'disk'), join(this.place.dir, 'state'));
    this.env = this.disk.env;
    const data = join(this.disk.root, 'data');
    if (backend === 'file') this.place.use_files(data);
    else this.place.settings.workflow_persistence.sqlite.database_path = join(data, 'workflow.db');
    this.place.save();
  }
  cut({ at = 0, when }) {
    this.loses = when === 'lost';
    this.disk.cut(at);
  }
  lose() {
    if (this.loses) this.disk.drop();
    else this.disk.forget();
  }
}

for (const backend of ['sqlite', 'file']) {
  test(`cut off at changes of the disk: ${backend}`, { timeout: 3600000 }, async (t) => {
    const hosts = await Promise.all(Array.from({ length: HOSTS },
      () => new Forgetful().start(backend)));
    t.after(() => Promise.all(hosts.map((host) => host.stop())));
    for (const flow of FLOWS) {
      const undisturbed = await hosts[0].play(flow), changes = hosts[0].disk.calls;
      const all = Array.from({ length: changes }, (_, i) => ({ kind: 'change', at: i + 1 }));
      const todo = part(all, SHARE)
        .map((cut, i) => ({ ...cut, when: (i + (SEED >> 9)) % 2 ? 'killed' : 'lost' }));
      const runs = todo.length;
      let deaths = 0;
      await work(hosts, flow, todo, undisturbed, (host) => { deaths += host.died ? 1 : 0; });
      t.diagnostic(`TIDEMILL_SEED=${SEED}, ${flow}: ${changes} changes, ${runs} runs, `
        + `${deaths} deaths`);
      assert.ok(deaths >= Math.floor(runs * 0.7), 'a run makes some changes more or less');
    }
  });
}
