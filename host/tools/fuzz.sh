#!/bin/sh
# fuzz.sh SECONDS [NAME...] - builds each tests/fuzz/fuzz_NAME.c with libFuzzer and ASan+UBSan and
# runs it for SECONDS on what is kept in tests/fuzz/NAME/, with the words of tests/fuzz/NAME.dict;
# four at a time. What it finds is collected in build-fuzz/corpus-NAME/. An input that makes it fail is
# left in build-fuzz/ and named.
set -eu
seconds=${1:-10}
[ "$#" -eq 0 ] || shift
dir=build-fuzz
flags="-O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined"
make --no-print-directory -s CC="${FUZZ_CC:-clang}" BUILD=$dir CFLAGS="$flags" $dir/libtidemill.a
if [ "$#" -eq 0 ]; then
  for source in tests/fuzz/fuzz_*.c; do
    name=$(basename "$source" .c)
    set -- "$@" "${name#fuzz_}"
  done
fi

build() {
  ${FUZZ_CC:-clang} -std=c17 -D_GNU_SOURCE -I. -Ihost -Ihost/include -isystem /usr/include/lua5.4 \
    -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -Wall -Wextra -Werror \
    "tests/fuzz/fuzz_$1.c" $dir/libtidemill.a -o "$dir/fuzz_$1" \
    -llua5.4 -luv -lcurl -lmicrohttpd -lsqlite3 -lhiredis -lpq -lzstd -lyaml -ljansson -lsodium -lm -pthread
}

# Its seeds come after the folder that new inputs are written to.
fuzz() {
  name=$1 log=$dir/fuzz_$1.log
  mkdir -p "$dir/corpus-$name"
  set -- "$dir/corpus-$name"
  [ ! -d "tests/fuzz/$name" ] || set -- "$@" "tests/fuzz/$name"
  [ ! -f "tests/fuzz/$name.dict" ] || set -- "-dict=tests/fuzz/$name.dict" "$@"
  if build "$name" >"$log" 2>&1 && "$dir/fuzz_$name" -max_total_time="$seconds" -timeout=10 \
    -rss_limit_mb=2048 -artifact_prefix="$dir/$name-" "$@" >"$log" 2>&1; then
    echo "ok $name $(grep -o 'Done [0-9]* runs.*' "$log")" | tee "$dir/fuzz_$name.done"
  else
    echo "not ok $name"
    tail -40 "$log"
    grep -o "written to $dir/[^ ]*" "$log" || true
  fi
}

rm -f $dir/fuzz_*.done
started=0
for name; do
  fuzz "$name" &
  started=$((started + 1))
  [ $((started % 4)) -ne 0 ] || wait
done
wait
passed=0
for name; do
  [ ! -f "$dir/fuzz_$name.done" ] || passed=$((passed + 1))
done
echo "$passed passed, $(($# - passed)) failed"
[ "$passed" -eq "$#" ]
