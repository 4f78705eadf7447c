// The logs of a file store, as a person with an editor would check them.
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

// The names of those that are not a first line and then whole frames to the end.
export function broken_logs(folder) {
  const all = join(folder, 'conversations');
  if (!existsSync(all)) return [];
  return readdirSync(all).flatMap((part) => readdirSync(join(all, part))
    .map((name) => join(all, part, name)).filter(is_broken));
}

function is_broken(name) {
  const bytes = readFileSync(name);
  let at = bytes.indexOf('\n') + 1;
  if (at === 0 || JSON.parse(bytes.subarray(0, at)).tidemill !== 'conversation') return true;
  while (at < bytes.length) {
    const size = Number(/^\{"frame":"(\d{10})"/.exec(bytes.subarray(at, at + 24))?.[1]);
    const last = bytes.subarray(at + size - 64, at + size).toString();
    if (!/^\{"sum":"[0-9a-f]{32}","frame":"\d{10}"\}\n$/.test(last)) return true;
    at += size;
  }
  return false;
}
