#!/bin/bash
# bench/postgres.sh TURNS DIR SECONDS - durable turns through the library on PostgreSQL, 64 at once, against
# pgbench with one insert of 2.3 KB and one update in a transaction, 64 clients: in turn in one run, on
# a server of its own whose files are in DIR. TURNS is bench/turns.c, compiled. BENCH_HOSTS=3: also with
# so many processes on one database.
set -eu
turns=$1 dir=$2 seconds=$3
hosts=${BENCH_HOSTS:-1}
bin=$(dirname "$(find /usr/lib/postgresql -name initdb -path '*/bin/*' | sort -V | tail -n 1)")
as=()
mkdir "$dir/postgres"
if [ "$(id -u)" -eq 0 ]; then # initdb refuses root
  chown postgres "$dir/postgres"
  for up in "$dir" "$(dirname "$(realpath "$dir")")"; do chmod a+x "$up"; done
  as=(setpriv --reuid=postgres --regid=postgres --clear-groups --)
fi
trap '"${as[@]}" "$bin/pg_ctl" -s -D "$dir/postgres/data" -m immediate stop 2>/dev/null || true; rm -rf "$dir/postgres"' EXIT

(cd "$dir/postgres" && "${as[@]}" "$bin/initdb" -D data -U bench -A trust -E UTF8 --locale=C) >/dev/null
for _ in 1 2 3 4 5; do
  port=$((20000 + RANDOM % 12000))
  (cd "$dir/postgres" && "${as[@]}" "$bin/pg_ctl" -s -w -D data -l log -o "-h 127.0.0.1 -p $port -k '' \
    -c max_connections=150 -c max_wal_size=4GB" start) && break
done
url=postgresql://bench@127.0.0.1:$port/postgres
export BENCH_STORE="workflow_persistence.backend=postgres workflow_persistence.postgres.url=$url"

"$bin/psql" "$url" -qX <<'SQL'
CREATE TABLE bench_heads(id bigint PRIMARY KEY, revision bigint NOT NULL, step text) WITH (fillfactor=70);
CREATE TABLE bench_rows(id bigserial PRIMARY KEY, head bigint NOT NULL, body text NOT NULL);
INSERT INTO bench_heads SELECT i, 0, 'ask' FROM generate_series(1, 10000) i;
SQL
cat >"$dir/pgbench.sql" <<'SQL'
\set id random(1, 10000)
BEGIN;
INSERT INTO bench_rows(head, body) VALUES (:id, repeat(md5(random()::text), 72));
UPDATE bench_heads SET revision = revision + 1 WHERE id = :id;
COMMIT;
SQL
"$bin/pgbench" -n -M prepared -c 64 -j 2 -T "$seconds" -f "$dir/pgbench.sql" "$url" >"$dir/pgbench.out" 2>&1 ||
  { cat "$dir/pgbench.out"; exit 1; }
limit=$(sed -n 's/^tps = \([0-9.]*\).*/\1/p' "$dir/pgbench.out")
echo "pgbench: $limit transactions/s, 64 clients"
"$turns" throughput "$dir/unused.db" "$seconds" | tee "$dir/postgres.out"
ours=$(sed -n 's/^library: \([0-9.]*\) .*/\1/p' "$dir/postgres.out")
echo "library on PostgreSQL / pgbench: $(awk -v a="$ours" -v b="$limit" 'BEGIN { printf "%.3f", a / b }') (at least 0.15)"

[ "$hosts" -gt 1 ] || exit 0
pids=()
for host in $(seq "$hosts"); do
  "$turns" throughput "$dir/unused.db" "$seconds" >"$dir/host.$host.out" &
  pids+=($!)
done
wait "${pids[@]}"
awk -v n="$hosts" '/^library/ { sum += $2 } END { printf "%d hosts together: %d turns/s\n", n, sum }' "$dir"/host.*.out
