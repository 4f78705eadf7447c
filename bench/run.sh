#!/bin/bash
# bench/run.sh BUILD - what the claims are measured with: ratios against the raw store's limit
# (bench/limit.c), taken in turn in one run, on the disk that BENCH_DIR (the build folder) is on.
# Exit code 1 if a bound is not held.
set -euo pipefail
if [ -z "${BENCH_JUDGED:-}" ]; then
  BENCH_JUDGED=1 "$0" "$@" | bench/held.sh
  exit
fi
build=${1:-build}
seconds=${BENCH_SECONDS:-5}
rounds=${BENCH_ROUNDS:-3}
dir=$(mktemp -d "${BENCH_DIR:-$build}/bench.XXXXXX")
server=
trap '[ -z "$server" ] || kill -9 "$server" 2>/dev/null || true; rm -rf "$dir"' EXIT

cc -O2 -o "$dir/limit" bench/limit.c -lsqlite3
cc -std=c17 -D_GNU_SOURCE -O2 -Ihost/include -o "$dir/turns" bench/turns.c "$build/libtidemill.a" \
  -lmimalloc -llua5.4 -luv -lcurl -lmicrohttpd -lsqlite3 -lhiredis -lpq -lzstd -lyaml -ljansson \
  -lsodium -lm -pthread
cc -std=c17 -D_GNU_SOURCE -O2 -Ihost/include -o "$dir/versions" bench/versions.c \
  "$build/libtidemill.a" -lmimalloc -llua5.4 -luv -lcurl -lmicrohttpd -lsqlite3 -lhiredis -lpq \
  -lzstd -lyaml -ljansson -lsodium -lm -pthread

number() { sed -n "s/^$1: [a-z ]*\([0-9.]*\) .*/\1/p" "$2" | head -1; }
median() { grep -o 'median [0-9.]*' "$1" | cut -d' ' -f2; }
middle() { printf %s "$1" | sort -n | sed -n 2p; } # of three
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.3f", a / b }'; }

for round in $(seq "$rounds"); do
  echo "# round $round of $rounds"
  ratios=
  for _ in 1 2 3; do # what others do on the machine meanwhile differs from second to second
    rm -f "$dir"/*.db*
    "$dir/limit" "$dir/limit.db" "$seconds" | tee "$dir/limit.out"
    "$dir/turns" throughput "$dir/turns.db" "$seconds" "$dir/ids" | tee "$dir/turns.out"
    limit=$(number limit "$dir/limit.out")
    ratios+=$(ratio "$(number library "$dir/turns.out")" "$limit")$'\n'
  done
  echo "library / limit: $(middle "$ratios") (at least 0.4)"

  "$build/tidemill" serve --config bench/agent_config.yaml --set scripts=bench/systems \
    --set "workflow_persistence.sqlite.database_path=$dir/turns.db" --listen 127.0.0.1:0 \
    >"$dir/serve.out" &
  server=$!
  for _ in $(seq 100); do grep -q listening "$dir/serve.out" && break; sleep 0.05; done
  url=$(sed -n 's/^listening on //p' "$dir/serve.out")
  wrk -t1 -c64 -d"${seconds}s" -s bench/http.lua "$url" -- "$dir/ids" | grep '^http:' | tee "$dir/http.out"
  kill "$server"; wait "$server"; server=
  echo "http / limit: $(ratio "$(number http "$dir/http.out")" "$limit") (at least 0.25)"

  ratios=
  for _ in 1 2 3; do
    rm -f "$dir"/*.db*
    "$dir/limit" --single "$dir/limit.db" 2 | tee "$dir/single.out"
    "$dir/turns" latency "$dir/turns.db" 500 | tee "$dir/latency.out"
    ratios+=$(ratio "$(median "$dir/latency.out")" "$(median "$dir/single.out")")$'\n'
  done
  echo "one turn / one bare commit: $(middle "$ratios") (at most 3)"
  rm -f "$dir"/*.db*
  "$dir/turns" memory "$dir/turns.db" 1 | tee "$dir/one.out"
  rm -f "$dir"/*.db*
  "$dir/turns" memory "$dir/turns.db" 9 | tee "$dir/nine.out"
  awk -v a="$(number memory "$dir/one.out")" -v b="$(number memory "$dir/nine.out")" \
    'BEGIN { printf "memory of a worker with its state of one system: %.0f KiB\n", (b - a) / 8 }'
  rm -f "$dir"/*.db*
  "$dir/turns" length "$dir/turns.db"
  bench/redis.sh "$dir/turns" "$dir" "$seconds"
  bench/codec.sh "$dir/turns" "$dir" "$seconds"
  bench/postgres.sh "$dir/turns" "$dir" "$seconds"
  bench/versions.sh "$dir/versions" "$dir" "$seconds"
done
"$dir/turns" deadlines "$dir/deadlines.db" "${BENCH_DEADLINES:-1000000}" # ratios of its own: once
tests/servers.sh bench/bytes.sh "$dir/turns" "$dir" "$seconds" # no times: once is enough
