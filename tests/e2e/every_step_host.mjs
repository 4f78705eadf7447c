// What every_step*.test.mjs have in common: a host that is there again whenever it has died, and the
// cuts that are made, each in a conversation of its own: by night all of them, by day a part, another
// one each time. TIDEMILL_SEED takes the same part again.
import { compare, play, World } from './every_step_scenario.mjs';
import { system } from './every_step_system.mjs';
import { Place, program, Server } from './host.mjs';

export const NIGHTLY = process.env.TIDEMILL_NIGHTLY === '1';
export const SEED = Number(process.env.TIDEMILL_SEED ?? Math.floor(Math.random() * 65536)) % 65536;

// One of so many of them.
export const part = (all, share) => all.filter((_, i) => (i + SEED) % share === 0);

// All cuts before and behind what is counted by kind.
export const cuts = (counts, kinds) => kinds.flatMap((kind) =>
  Array.from({ length: counts[kind] ?? 0 }, (_, at) => ['before', 'after']
    .map((when) => ({ kind, at, when }))).flat());

const words = ({ kind, at, when, then }) =>
  `${when} ${kind} ${at ?? ''}${then ? `, then ${words(then)}` : ''}`;

export class Host {
  binary = program;
  env = {};
  // Of `backend`, where its store lies; says where it dies, and what has died with it.
  prepare(backend) { if (backend === 'file') this.place.use_files(); }
  cut() {}
  lose() {}
  async start(backend) {
    this.world = await new World().start();
    this.place = new Place({ shipped: false, config: { webhooks: this.world.webhooks } });
    this.prepare(backend);
    this.place.script('every', system(this.world.url));
    await this.#serve();
    return this;
  }
  async #serve() {
    const server = this.server = await new Server(this.place, this.binary).start([], this.env);
    this.death = server.ended.then(() => this.over || this.#again());
    return server;
  }
  #again() {
    this.died = true;
    this.lose();
    return this.#serve();
  }
  servers() { return [this.server]; }
  // `cut`: { kind, at, when }, or nothing.
  async play(flow, cut = {}) {
    this.died = false;
    this.world.reach = (kind, n, when) => {
      if (kind !== cut.kind || n !== cut.at || when !== cut.when) return false;
      this.server.kill();
      return true;
    };
    this.cut(cut);
    return play(this, flow);
  }
  async stop() {
    this.over = true;
    await this.server.kill();
    this.world.stop();
    this.place.remove();
  }
}

// Until nothing is left of `todo`, or somebody has failed. `check`, of what was played, besides.
export async function work(hosts, flow, todo, undisturbed, check = () => {}) {
  const worker = async (host) => {
    try {
      for (let cut = todo.shift(); cut; cut = todo.shift()) {
        const one = await host.play(flow, cut), where = `TIDEMILL_SEED=${SEED}, ${words(cut)}`;
        compare(one, undisturbed, where);
        check(host, one, cut, where);
      }
    } finally {
      todo.length = 0;
    }
  };
  const ends = await Promise.allSettled(hosts.map(worker));
  for (const end of ends) if (end.reason) throw end.reason;
}
