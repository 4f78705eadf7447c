#!/bin/bash
# bench/redis.sh TURNS DIR SECONDS - durable turns on Redis, 64 at once, against what redis-benchmark
# gets out of the same server with SET of 2.3 KB: appendfsync is always for both.
set -eu
turns=$1 dir=$(mktemp -d "$2/redis.XXXXXX") seconds=$3
server=
trap '[ -z "$server" ] || { kill "$server"; wait "$server" || true; }; rm -rf "$dir"' EXIT

for _ in 1 2 3 4 5; do
  port=$((20000 + RANDOM % 12000))
  redis-server --bind 127.0.0.1 --port "$port" --dir "$dir" --save '' --appendonly yes \
    --appendfsync always --auto-aof-rewrite-percentage 0 >"$dir/log" 2>&1 &
  server=$!
  until redis-cli -p "$port" ping >/dev/null 2>&1 || ! kill -0 "$server" 2>/dev/null; do sleep 0.05; done
  kill -0 "$server" 2>/dev/null && break
  server=
done
[ -n "$server" ] || { tail -3 "$dir/log"; exit 1; }

limit() { # as many requests as take some seconds
  redis-benchmark -p "$port" -t set -d 2300 -r 10000 -c 64 -n "$1" --csv | awk -F'"' '/^"SET/ { print $4 }'
}
quick=$(limit 20000)
sets=$(limit "$(awk -v q="$quick" -v s="$seconds" 'BEGIN { printf "%d", q * s }')")
echo "redis limit: $sets SET/s of 2300 bytes, 64 at once"
redis-cli -p "$port" flushall >/dev/null
BENCH_STORE="workflow_persistence.backend=redis workflow_persistence.redis.host=127.0.0.1 \
workflow_persistence.redis.port=$port" "$turns" throughput "$dir/unused.db" "$seconds" | sed 's/^library/redis/' |
  tee "$dir/turns.out"
awk -v a="$(sed -n 's/^redis: \([0-9.]*\) .*/\1/p' "$dir/turns.out")" -v b="$sets" \
  'BEGIN { printf "redis / its limit: %.3f (at least 0.15)\n", a / b }'
