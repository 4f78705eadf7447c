#!/bin/bash
# bench/postgres.sh TURNS DIR SECONDS - durable turns through the library on PostgreSQL, 64 at once in each
# of one, two and three hosts on one database, against pgbench with one insert of 2.3 KB and one
# update in a transaction, 64 clients: in turn in one run, on a server of its own whose files are in
# DIR. TURNS is bench/turns.c, compiled. BENCH_HOSTS: up to how many hosts.
set -eu
turns=$1 dir=$2 seconds=$3
hosts=${BENCH_HOSTS:-3}
bin=$(dirname "$(find /usr/lib/postgresql -name initdb -path '*/bin/*' | sort -V | tail -n 1)")
as=()
mkdir "$dir/postgres"
if [ "$(id -u)" -eq 0 ]; then # initdb refuses root
  chown postgres "$dir/postgres"
  for up in "$dir" "$(dirname "$(realpath "$dir")")"; do chmod a+x "$up"; done
  as=(setpriv --reuid=postgres --regid=postgres --clear-groups --)
fi
pids=()
trap '[ "${#pids[@]}" -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
  "${as[@]}" "$bin/pg_ctl" -s -D "$dir/postgres/data" -m immediate stop 2>/dev/null || true; rm -rf "$dir/postgres"' EXIT

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

# Transactions of all hosts so far; the processors' time so far, busy, all of it, and the server's.
counts() {
  echo "$EPOCHREALTIME $("$bin/psql" "$url" -qXAt -c 'SELECT coalesce(sum(serial),0) FROM tidemill.writers')" \
    "$(awk '/^cpu / { for (i = 2; i <= 9; i++) all += $i; print all - $5 - $6, all }' /proc/stat)" \
    "$(awk -v up="$(head -n 1 "$dir/postgres/data/postmaster.pid")" '$4 == up { sum += $14 + $15 }
      END { print sum }' /proc/[0-9]*/stat 2>/dev/null)"
}

all_ready() {
  [ "$(cat "$dir"/host.*.out 2>/dev/null | grep -cx ready)" -eq "$1" ] || ! kill -0 "${pids[@]}" 2>/dev/null
}

# What so many hosts do in the same seconds; transactions and processors in the middle of them.
measure() {
  local before after
  rm -f "$dir"/host.*.out "$dir/gate"
  mkfifo "$dir/gate"
  pids=()
  for host in $(seq "$1"); do
    BENCH_GATE=$dir/gate "$turns" throughput "$dir/unused.db" "$seconds" >"$dir/host.$host.out" &
    pids+=($!)
  done
  until all_ready "$1"; do sleep 0.05; done
  exec 9<>"$dir/gate"
  before=$(counts)
  sleep "$(awk -v s="$seconds" 'BEGIN { print s * 0.8 }')"
  after=$(counts)
  for pid in "${pids[@]}"; do wait "$pid"; done
  exec 9>&-
  pids=()
  sum=$(awk '/^library/ { sum += $2 } END { print sum }' "$dir"/host.*.out)
  [ "$1" -gt 1 ] || one=$sum
  echo "$before $after" | awk -v n="$1" -v tick="$(getconf CLK_TCK)" -v sum="$sum" -v one="$one" -v limit="$limit" '{
    printf "hosts: %d, together %d turns/s, %.2f of one, %.3f of pgbench; ", n, sum, sum / one, sum / limit
    turns = sum * ($6 - $1)
    printf "%.1f turns a transaction, %.0f us CPU of the server a turn, processors %.0f%% busy\n",
      turns / ($7 - $2), ($10 - $5) / tick * 1e6 / turns, 100 * ($8 - $3) / ($9 - $4)
  }'
}

measure 1
sed 's/^library/one host/; /^ready$/d' "$dir/host.1.out"
echo "library on PostgreSQL / pgbench: $(awk -v a="$one" -v b="$limit" 'BEGIN { printf "%.3f", a / b }') (at least 0.15)"
for n in $(seq 2 "$hosts"); do measure "$n"; done
