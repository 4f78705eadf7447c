#!/bin/bash
# bench/bytes.sh TURNS DIR SECONDS - bytes written per turn at a short and at a long conversation, on every
# backend that writes: what host and server hand to the kernel to be written, without what goes through
# sockets. TURNS is bench/turns.c, compiled. Runs inside tests/servers.sh.
set -eu
turns=$1 dir=$(mktemp -d "$2/bytes.XXXXXX") seconds=$3
trap 'rm -rf "$dir"' EXIT
short=60 long=$((1000 * seconds)) measured=200 # turns

host=${TIDEMILL_TEST_REDIS%:*} port=${TIDEMILL_TEST_REDIS#*:}
psql() { command psql "$TIDEMILL_TEST_POSTGRES" -qXAtc "$1"; }
postmaster=$(head -n 1 "$(psql 'SHOW data_directory')/postmaster.pid")
# What PostgreSQL writes at times of its own: a new file of its log full of zeros, and what autovacuum
# does, which is done before each measurement instead.
psql 'ALTER SYSTEM SET wal_init_zero = off'
psql 'ALTER SYSTEM SET autovacuum = off'
psql 'SELECT pg_reload_conf()' >/dev/null

at=workflow_persistence
stores=(
  "sqlite   $at.sqlite.database_path=$dir/turns.db"
  "file     $at.file.storage_directory=$dir/states"
  "redis    $at.redis.host=$host $at.redis.port=$port"
  "postgres $at.postgres.url=$TIDEMILL_TEST_POSTGRES"
)

grow() { "$turns" grow "$dir/turns.db" "$@"; } # TURNS [ID]

redis_written() { # its log is only appended to
  redis-cli -h "$host" -p "$port" info persistence | tr -d '\r' | sed -n 's/^aof_current_size://p'
}

postgres_written() { # with the pages of its tables; a process that ended is counted in the postmaster
  psql CHECKPOINT
  for pid in "$postmaster" $(ps -o pid= --ppid "$postmaster"); do
    cat "/proc/$pid/io" 2>/dev/null || true
  done | awk '/^wchar/ { sum += $2 } END { printf "%d", sum }'
}

per_turn() { # ID
  local servers id bytes
  servers=$(($(redis_written) + $(postgres_written)))
  read -r id bytes < <(grow "$measured" "$1")
  [ "$id" = "$1" ]
  echo $(((bytes + $(redis_written) + $(postgres_written) - servers) / measured))
}

for store in "${stores[@]}"; do
  read -r backend settings <<<"$store"
  export BENCH_STORE="$at.backend=$backend $settings"
  read -r old _ < <(grow "$long")
  read -r young _ < <(grow "$short")
  psql 'VACUUM ANALYZE'
  few=$(per_turn "$young") many=$(per_turn "$old")
  awk -v name="$backend" -v few="$few" -v many="$many" -v short="$short" -v long="$long" 'BEGIN {
    printf "bytes written per turn on %s: %d after %d turns, %d after %d, ratio %.2f (at most 1.1)\n",
      name, few, short, many, long, many / few }'
done
