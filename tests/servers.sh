#!/bin/bash
# servers.sh COMMAND... - runs a command with a redis-server and a PostgreSQL of its own, each on a free
# loopback port, and stops them afterwards. The command finds them in TIDEMILL_TEST_REDIS (host:port) and
# TIDEMILL_TEST_POSTGRES (a URL). Inside another servers.sh it only runs the command.
set -eu
[ -z "${TIDEMILL_TEST_REDIS:-}" ] || exec "$@"

dir=$(mktemp -d "${TMPDIR:-/tmp}/tidemill-servers-XXXXXX")
chmod 755 "$dir"
redis_pid='' as=()

stop() {
  trap - EXIT
  [ -z "$redis_pid" ] || kill "$redis_pid" 2>/dev/null || true
  [ ! -d "$dir/postgres/data" ] ||
    "${as[@]}" "$bin/pg_ctl" -s -D "$dir/postgres/data" -m immediate stop >/dev/null 2>&1 || true
  [ -z "$redis_pid" ] || wait "$redis_pid" 2>/dev/null || true
  rm -rf "$dir"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
  printf 'servers.sh: %s\n' "$1" >&2
  [ ! -f "$2" ] || tail -n 20 "$2" >&2
  exit 1
}

# A port that nobody listens on now; who loses it to another process tries the next.
free_port() {
  while :; do
    port=$((20000 + RANDOM % 12000))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || return 0
  done
}

start_redis() {
  mkdir "$dir/redis"
  for _ in 1 2 3 4 5; do
    free_port
    redis-server --bind 127.0.0.1 --port "$port" --dir "$dir/redis" --databases 1024 --save '' --appendonly yes \
      --appendfsync always --daemonize no >"$dir/redis.log" 2>&1 &
    redis_pid=$!
    while kill -0 "$redis_pid" 2>/dev/null; do
      if redis-cli -h 127.0.0.1 -p "$port" ping 2>/dev/null | grep -q PONG; then
        export TIDEMILL_TEST_REDIS=127.0.0.1:$port
        return
      fi
      sleep 0.05
    done
  done
  fail 'redis-server does not start' "$dir/redis.log"
}

# initdb refuses root: then the servers run as the user that Debian's package made.
start_postgres() {
  bin=$(find /usr/lib/postgresql -name initdb -path '*/bin/*' 2>/dev/null | sort -V | tail -n 1)
  [ -n "$bin" ] || fail 'there is no PostgreSQL under /usr/lib/postgresql' ''
  bin=$(dirname "$bin")
  mkdir "$dir/postgres"
  if [ "$(id -u)" -eq 0 ]; then
    chown postgres "$dir/postgres"
    as=(setpriv --reuid=postgres --regid=postgres --clear-groups --)
  fi
  echo secret >"$dir/password"
  chmod 644 "$dir/password"
  (cd "$dir/postgres" && "${as[@]}" "$bin/initdb" -D data -U tidemill -A scram-sha-256 -E UTF8 \
    --locale=C --no-sync --pwfile="$dir/password") >"$dir/initdb.log" 2>&1 ||
    fail 'initdb failed' "$dir/initdb.log"
  for _ in 1 2 3 4 5; do
    free_port
    if (cd "$dir/postgres" && "${as[@]}" "$bin/pg_ctl" -s -w -t 60 -D data -l log -o "-h 127.0.0.1 \
      -p $port -k ''" start) >"$dir/pg_ctl.log" 2>&1; then
      export TIDEMILL_TEST_POSTGRES=postgresql://tidemill:secret@127.0.0.1:$port/postgres
      return
    fi
  done
  fail 'PostgreSQL does not start' "$dir/postgres/log"
}

start_redis
start_postgres
"$@"
