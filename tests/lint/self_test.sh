#!/bin/sh
# self_test.sh - every check of host/tools/lint.sh can fail: in a small tree of its own each passes,
# then a violation is planted for it, and it must be reported. Ends with "N passed, N failed".
# shellcheck disable=SC2016 # what is planted is not for this shell
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
trap 'exit 2' HUP INT TERM
passed=0 failed=0

# A tree in which every check passes.
make_tree() {
  mkdir -p "$tree/host/core" "$tree/host/config" "$tree/host/include" "$tree/host/tools" "$tree/lua/tidemill" \
    "$tree/persistence" "$tree/scripts/shop" "$tree/tests/core" "$tree/bench" "$tree/docs" "$tree/.ci"
  cp "$root/Makefile" "$root/.clang-format" "$root/.clang-tidy" "$root/.luacheckrc" "$tree"
  cp "$root"/host/tools/lint* "$root/host/tools/errors.lua" "$tree/host/tools"
  cp "$root/host/include/tidemill.h" "$tree/host/include"
  cp "$root/host/core/err.h" "$tree/host/core"
  cp "$root/host/config/keys.def" "$tree/host/config"
  printf '/* errors.def */\nAREA("demo", "demo")\nERROR("demo.failed", 0, "it failed", "mend it")\n' \
    >"$tree/host/core/errors.def"
  printf '#include "core/err.h"\n\ntm_status tm_demo(tm_error *err);\n\ntm_status tm_demo(tm_error *err) {\n  return tm__fail(err, TM_EIO, "demo.failed", "it failed");\n}\n' \
    >"$tree/host/core/demo.c"
  printf 'int main(void) {\n  return 0;\n}\n' >"$tree/tests/core/demo_test.c"
  printf 'local M = {}\n\nreturn M\n' >"$tree/lua/tidemill/demo.lua"
  printf 'local tm = require "tidemill"\n\nreturn tm\n' >"$tree/scripts/shop/init.lua"
  mkdir "$tree/lua/tidemill/cli" # what is copied names these
  printf 'typedef int tm_slot;\n' | tee "$tree/host/config/rules.c" "$tree/host/store_options.c" >"$tree/host/slot.c"
  printf '#!/bin/sh\nexit 0\n' >"$tree/.ci/run"
  printf 'See `docs/errors.md`.\n' >"$tree/README.md"
  (cd "$tree" && lua5.4 host/tools/errors.lua docs docs/errors.md) || exit 2
  build host/core/demo.c
}

# The library of $BUILD, of one file.
build() {
  mkdir -p "$tree/build"
  rm -f "$tree/build/libtidemill.a"
  (cd "$tree" && gcc -std=c17 -fPIC -fvisibility=default -I. -Ihost -Ihost/include -c "$1" -o build/one.o &&
    ar rcs build/libtidemill.a build/one.o && gcc -shared build/one.o -o build/libtidemill.so) || exit 2
}

lint() {
  (cd "$tree" && BUILD=build host/tools/lint.sh "$@") 2>&1
}

# expect CHECK TEXT: the check fails now, and says so.
expect() {
  found=$(lint "$1")
  status=$?
  if [ "$status" -eq 1 ] && printf '%s' "$found" | grep -q -e "$2"; then
    passed=$((passed + 1))
    echo "ok $1: $2"
  else
    failed=$((failed + 1))
    printf 'not ok %s: no "%s" in\n%s\n' "$1" "$2" "$found"
  fi
}

# plant CHECK TEXT FILE LINE...: with these lines in the file the check must fail, saying TEXT.
plant() {
  check=$1 text=$2 file=$3
  shift 3
  mkdir -p "$tree/$(dirname "$file")"
  printf '%s\n' "$@" >"$tree/$file"
  expect "$check" "$text"
  rm "$tree/$file"
}

plant_built() {
  check=$1 text=$2
  shift 2
  printf '%s\n' "$@" >"$tree/planted.c"
  build planted.c
  expect "$check" "$text"
  rm "$tree/planted.c"
}

# provoked STATUS TEXT LINE...: what becomes of a record of these codes, after a test that names one.
provoked() {
  wanted=$1 text=$2
  shift 2
  printf '%s\n' "$@" >"$tree/record"
  printf '/* demo.failed */\n' >"$tree/tests/core/named.h"
  found=$(cd "$tree" && lua5.4 host/tools/errors.lua provoked record)
  if [ $? -eq "$wanted" ] && printf '%s' "$found" | grep -q -e "$text"; then
    passed=$((passed + 1))
    echo "ok provoked: $text"
  else
    failed=$((failed + 1))
    printf 'not ok provoked: no "%s" in\n%s\n' "$text" "$found"
  fi
  rm "$tree/record" "$tree/tests/core/named.h"
}

# allow CHECK FILE LINE...: with these lines in the file the check passes.
allow() {
  check=$1 file=$2
  shift 2
  printf '%s\n' "$@" >"$tree/$file"
  if found=$(lint "$check"); then
    passed=$((passed + 1))
    echo "ok $check lets $file be"
  else
    failed=$((failed + 1))
    printf 'not ok %s refuses %s:\n%s\n' "$check" "$file" "$found"
  fi
  rm "$tree/$file"
}

lines() { # lines COUNT TEXT
  awk -v count="$1" -v text="$2" 'BEGIN { for (i = 0; i < count; i++) print text }'
}

make_tree
if clean=$(lint); then
  passed=$((passed + 1))
  echo "ok a clean tree"
else
  failed=$((failed + 1))
  printf 'not ok a clean tree:\n%s\n' "$clean"
fi

plant format 'bad.c: is formatted differently' host/core/bad.c 'int  a;'
plant layers 'may not include "api/api.h"' host/core/bad.c '#include "api/api.h"'
plant layers 'may not use <uv.h>' host/core/bad.c '#include <uv.h>'
plant layers 'may not include "api/api.h"' host/core/bad.c '/* */ #include /* */ "api/api.h"'
plant layers 'bad.c:1: write what is included' host/core/bad.c '#include NAME'
plant layers 'may not include "host/core/err.h"' host/main_bad.c '#include <core/err.h>'
plant layers 'may not include "host/core/err.h"' bench/bad.c '#include "core/err.h"'
plant layers 'host/api/ may not use <lauxlib.h>' host/api/bad.c '#include <lauxlib.h>'
plant layers 'host/journal/ may not use <lua5.4/lua.h>' host/journal/bad.c '#include <lua5.4/lua.h>'
plant layers 'persistence/ may not use <libpq-fe.h>' persistence/store_file_bad.c '#include <libpq-fe.h>'
plant layers 'persistence/ may not use <hiredis/hiredis.h>' persistence/bad.c '#include <hiredis/hiredis.h>'
touch "$tree/persistence/store_redis.h"
plant layers 'may not include "persistence/store_redis.h"' persistence/store_file_bad.c \
  '#include "persistence/store_redis.h"'
plant layers 'may not include "persistence/store_redis.h"' persistence/bad.c '#include "store_redis.h"'
rm "$tree/persistence/store_redis.h"
for file in host/new_layer/bad.c persistence/new/bad.h lua/other/bad.lua host/core/bad.lua lua/tidemill/bad.c; do
  plant layers "$file:1: belongs to no layer" "$file" ''
done
may_not='may not require "host.json"'
plant layers "$may_not" scripts/shop/bad.lua 'return require "host.json"'
plant layers "$may_not" scripts/shop/bad.lua 'return require [[host.json]]'
plant layers "bad.lua:1: .*$may_not" scripts/shop/bad.lua '--[[x]] return require "host.json"'
plant layers "bad.lua:4: .*$may_not" scripts/shop/bad.lua '--[==[' ']] require' ']==]' 'return require' '"host.json"'
plant layers "$may_not" lua/meta/bad.lua "return (require('host.json'))"
for use in 'local r = _G.require' 'local r = _G["require"]' 'local r = require' 'f(require, 1)' \
  'require("host." .. "json")' 'require(name)' 'require "\104ost.json"'; do
  plant layers 'only require a literal name' scripts/shop/bad.lua "$use"
done
allow layers scripts/shop/good.lua '-- require (what)' 'local a = { require = 1, [=[require(]=] }' \
  "return 'require it', \"\\\"require(\"" '--[[ require "host.json" ]]'
plant errors 'demo.other is not listed' host/core/bad.c 'int f = tm__fail(err, TM_EIO, "demo.other", "");'
plant errors 'demo.v2 is not listed' host/core/bad.h '#define FAIL() tm__fail(err, TM_EIO, "demo.v2", "")'
plant errors 'new.area is not listed' lua/tidemill/bad.lua 'fault.stop("new.area", "")'
cp "$tree/host/core/errors.def" "$tree/kept"
echo 'ERROR("demo.never", 0, "m", "r")' >>"$tree/host/core/errors.def"
expect errors 'demo.never is raised nowhere'
expect errors 'errors.md is stale'
echo 'RULE("none", "m", "r")' >>"$tree/host/core/errors.def"
expect errors 'the rule none is reported nowhere'
mv "$tree/kept" "$tree/host/core/errors.def"
provoked 0 '1 of 1 codes' 'demo.failed'
provoked 1 'no test provokes demo.failed' ''
provoked 1 'a test provoked demo.other, which is not listed' 'demo.failed' 'demo.other'
provoked 1 'a test provoked .none., which is not listed' 'demo.failed' '[none]'
plant docs 'bad.md:2: there is no host/core/gone.c' docs/bad.md 'See `demo.c`,' 'and `host/core/gone.c`.'
plant docs 'there is no core/old.h' docs/bad.md '`host/core/NAME.c` and `core/old.h`'
plant docs 'there is no host/away' tests/bad.md 'all of `host/away/`'
plant docs 'bad.c:2: there is no core/gone.c' host/core/bad.c 'const char *s = "core/away.c";' '/* See core/gone.c. */'
plant docs 'bad.lua:1: there is no gone.lua' lua/tidemill/bad.lua '-- as in gone.lua'
plant sizes 'a function of 62 lines' lua/tidemill/bad.lua 'return function()' "$(lines 60 '  print(1)')" 'end'
plant sizes '460 lines' lua/tidemill/bad.lua "$(lines 460 '--')"
plant sizes '610 lines' host/core/bad.c "$(lines 610 '//')"
plant suites 'lonely.c: no suite runs' tests/core/lonely.c 'int main(void);'
plant suites 'lonely.mjs: no suite runs' tests/e2e/lonely.mjs ''
plant shell 'SC2086' bench/bad.sh '#!/bin/sh' 'echo $1'
plant luacheck 'unused variable' lua/tidemill/bad.lua 'local a = 1'
plant headers 'bad.h: does not compile alone' host/core/bad.h 'int f(size_t n);'
cp "$tree/host/include/tidemill.h" "$tree/kept"
echo 'int tm_template(int template);' >>"$tree/host/include/tidemill.h"
expect headers 'does not compile as C++17'
mv "$tree/kept" "$tree/host/include/tidemill.h"
plant warnings 'shadow' bench/bad.c 'static int a;' 'int main(int a) {' '  return a;' '}'
plant warnings 'conversion' tests/core/bad_test.c 'int main(int c, char **v) {' '  char d = c;' \
  '  return v[d] != 0;' '}'
plant_built exports 'exports loose' 'int loose(void) { return 0; }'
plant_built exports 'exports tm__inner' 'int tm__inner(void) { return 0; }'
hidden='__attribute__((visibility("hidden")))'
plant_built exports 'libtidemill.a exports loose' "$hidden int loose(void) { return 0; }"
plant_built globals 'count can be written' 'int count = 1; int tm_count(void) { return count; }'
plant_built globals 'kept.* can be written' 'int tm_next(void) { static int kept; return ++kept; }'
plant_built forbidden 'exit has no place' '#include <stdlib.h>' 'void tm_end(void) { exit(1); }'
plant_built forbidden 'abort has no place' '#include <stdlib.h>' 'void tm_end(void) { abort(); }'
plant_built forbidden 'stderr has no place' '#include <stdio.h>' 'void tm_say(void) { fputs("x", stderr); }'
plant_built forbidden 'printf has no place' '#include <stdio.h>' \
  'int tm_say(int n) { return printf("%d %d", n, n); }'
plant_built forbidden 'signal has no place' '#include <signal.h>' \
  'void tm_say(void) { signal(SIGINT, SIG_IGN); }'
plant_built forbidden 'dprintf has no place' '#include <stdio.h>' 'void tm_say(void) { dprintf(2, "x"); }'
plant_built forbidden 'warnx has no place' '#include <err.h>' 'void tm_say(void) { warnx("x"); }'
plant_built forbidden 'errx has no place' '#include <err.h>' 'void tm_say(void) { errx(1, "x"); }'
plant_built forbidden ' error has no place' '#include <error.h>' 'void tm_say(void) { error(1, 0, "x"); }'
plant_built forbidden 'syslog has no place' '#include <syslog.h>' 'void tm_say(void) { syslog(1, "x"); }'
for call in 'raise(2)' 'kill(1, 2)' 'psignal(2, "x")' 'sigprocmask(0, 0, 0)'; do
  plant_built forbidden "${call%%(*} has no place" '#include <signal.h>' "void tm_say(void) { $call; }"
done
plant cppcheck 'arrayIndexOutOfBounds' host/core/bad.c 'int f(void);' 'int f(void) {' '  int a[2] = {0};' \
  '  return a[2];' '}'
plant tidy 'bugprone-' host/core/bad.c 'int f(const char *s);' 'int f(const char *s) {' \
  '  return sizeof(s) / sizeof(s[0]) + (*s == 1 ? 2 : 2);' '}'
plant tidy 'readability-function-size' host/core/bad.c 'int f(int n);' 'int f(int n) {' \
  "$(lines 62 '  n ^= 1;')" '  return n;' '}'

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
