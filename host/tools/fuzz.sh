#!/bin/sh
# fuzz.sh SECONDS - builds each tests/fuzz/fuzz_NAME.c with libFuzzer and ASan+UBSan and runs it for
# SECONDS on its seeds (tests/fuzz/NAME/, if any); a crash fails and leaves its input in build-fuzz/.
set -e
seconds=${1:-10}
dir=build-fuzz
flags="-O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined"
make --no-print-directory -s CC=clang BUILD=$dir CFLAGS="$flags" $dir/libtidemill.a
passed=0 failed=0
for source in tests/fuzz/fuzz_*.c; do
  name=$(basename "$source" .c)
  clang -std=c17 -D_GNU_SOURCE -I. -Ihost -Ihost/include -isystem /usr/include/lua5.4 -O1 -g \
    -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined "$source" \
    $dir/libtidemill.a -o "$dir/$name" \
    -llua5.4 -luv -lcurl -lmicrohttpd -lsqlite3 -lyaml -ljansson -lsodium -lm -pthread
  mkdir -p "$dir/corpus-$name"
  seeds=tests/fuzz/${name#fuzz_}
  [ -d "$seeds" ] || seeds=
  if "$dir/$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=0 \
    -artifact_prefix="$dir/$name-" "$dir/corpus-$name" $seeds >"$dir/$name.log" 2>&1; then
    passed=$((passed + 1))
    echo "ok $name $(grep -o 'Done [0-9]* runs.*' "$dir/$name.log")"
  else
    failed=$((failed + 1))
    echo "not ok $name"
    tail -40 "$dir/$name.log"
  fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
