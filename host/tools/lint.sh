#!/bin/sh
# lint.sh [CHECK...] - what holds the style: each check prints `ok NAME` or its findings; exit 1 on any
# finding. Without arguments all checks run. The ones on the built library look into $BUILD (build).
# It knows nothing of the product but where files are. tests/lint/self_test.sh sees each check fail.
# shellcheck disable=SC2317 # functions are called by the names of their checks
set -u
cd "$(dirname "$0")/../.." || exit 2
export LC_ALL=C
build=${BUILD:-build}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 2' HUP INT TERM

all="format layers errors docs sizes suites shell luacheck headers warnings exports globals forbidden \
  cppcheck tidy"

# Folders that may not be there yet are no error.
find_in() {
  pattern=$1
  shift
  find "$@" -name "$pattern" -type f 2>/dev/null | sort
}
c_files() { find_in '*.[ch]' host persistence tests bench; }
shell_files() { find_in '*.sh' host bench tests && find_in run .ci; }
lua_files() { find_in '*.lua' host lua scripts tests bench; }

# The flags that the Makefile compiles with, less those that write files.
# shellcheck disable=SC2016 # make expands it
printf 'include Makefile\nlint-flags:\n\t@printf "%%s\\n" $(ALL_CFLAGS)\n' >"$scratch/flags.mk"
make -s --no-print-directory -f "$scratch/flags.mk" lint-flags |
  sed -e '/^-MM*[DP]$/d' -e '/^-O/d' -e '/^-fsanitize/d' >"$scratch/flags"

# Other versions format and find otherwise.
clang_is_14() {
  "$1" --version | grep -q 'version 14\.' || echo "$1 is not the pinned version 14"
}

check_format() {
  clang_is_14 clang-format
  for file in $(c_files); do
    clang-format --dry-run -Werror "$file" 2>"$scratch/format" && continue
    grep -q Wclang-format-violations "$scratch/format" || cat "$scratch/format"
    echo "$file: is formatted differently; mend it with clang-format -i"
  done
}

check_layers() {
  # shellcheck disable=SC2046 # no file name here has a blank
  lua5.4 host/tools/lint_layers.lua $(find_in '*.[ch]' host persistence lua scripts bench) \
    $(find_in '*.lua' host persistence lua scripts bench)
}

# The list of error codes, the sources and docs/errors.md say the same.
check_errors() {
  lua5.4 host/tools/errors.lua check docs/errors.md
}

# Every file that a document or a comment names is there.
check_docs() {
  # shellcheck disable=SC2046
  lua5.4 host/tools/lint_docs.lua README.md $(find_in '*.md' docs tests) \
    $(find_in '*.[ch]' host persistence bench) $(find_in '*.def' host persistence) \
    $(find_in '*.lua' host lua scripts bench)
}

# Functions of at most 60 lines, files that are not the product. Those of C are left to clang-tidy
# (readability-function-size); in specs a function is a group of them.
check_sizes() {
  for file in $(find_in '*.lua' lua scripts host); do
    luac5.4 -l -p "$file" | sed -n 's/^function <.*:\([0-9]*\),\([0-9]*\)>.*/\1 \2/p' |
      awk -v file="$file" '$2 - $1 >= 60 { print file ":" $1 ": a function of " $2 - $1 + 1 " lines" }'
  done
  find_in '*.lua' lua scripts host | xargs wc -l |
    awk '$2 != "total" && $1 > 450 { print $2 ": " $1 " lines, 450 are allowed" }'
  find_in '*.[ch]' host persistence | xargs wc -l |
    awk '$2 != "total" && $1 > 600 { print $2 ": " $1 " lines, 600 are allowed" }'
}

# No test is left out: what lies in tests/ is of a kind that its runner finds, or is named by another
# file there or by the Makefile.
check_suites() {
  find tests -type f \( -name '*.c' -o -name '*.lua' -o -name '*.mjs' -o -name '*.sh' \) | sort |
    grep -v -e '_test\.c$' -e '^tests/lua/.*_spec\.lua$' -e '^tests/e2e/.*\.test\.mjs$' \
      -e '^tests/fuzz/fuzz_[^/]*\.c$' -e '^tests/fixtures/' -e '^tests/hostile/[^/]*\.lua$' |
    while read -r file; do
      name=$(basename "$file")
      grep -rqF --include='*.[ch]' --include='*.lua' --include='*.mjs' --include='*.sh' \
        --include=Makefile --exclude="$name" -e "${name%.*}" Makefile tests host/tools ||
        echo "$file: no suite runs or uses it"
    done
}

check_shell() {
  # shellcheck disable=SC2046
  shellcheck $(shell_files)
}

# Every header is complete: it compiles as the only thing in a file; the public one in C++ too.
check_headers() {
  for header in $(find_in '*.h' host persistence); do
    printf '#include "%s"\n' "$header" >"$scratch/alone.c"
    for compiler in gcc clang; do
      xargs "$compiler" -x c -fsyntax-only "$scratch/alone.c" <"$scratch/flags" ||
        echo "$header: does not compile alone with $compiler"
    done
  done
  printf '#include "tidemill.h"\nint use(tm_host *h);\nint use(tm_host *h) {\n  tm_options o = TM_OPTIONS_INIT;\n  tm_begin b = TM_BEGIN_INIT;\n  tm_filter f = TM_FILTER_INIT;\n  tm_host_free(h);\n  return (int)(o.size + b.size + f.size);\n}\n' \
    >"$scratch/public.cc"
  clang++ -std=c++17 -fsyntax-only -Wall -Wextra -Wpedantic -Werror -Ihost/include \
    "$scratch/public.cc" || echo "tidemill.h: does not compile as C++17"
}

# make compiles what it makes with gcc and -Werror; here is the rest, and all of it with clang.
check_warnings() {
  { printf 'exec "$@"'; sed "s/.*/ '&'/" "$scratch/flags" | tr -d '\n'; } >"$scratch/compile.sh"
  c_files | grep '\.c$' | xargs -P2 -n1 sh "$scratch/compile.sh" clang -fsyntax-only
  c_files | grep '\.c$' | grep -v -e '_test\.c$' -e '^host/' -e '^persistence/' |
    xargs -r -P2 -n1 sh "$scratch/compile.sh" gcc -O2 -S -o /dev/null
}

built() {
  [ -f "$build/$1" ] && return 0
  echo "$build/$1 is not there: run make first"
  return 1
}

# What a program that links to the library can see: the public names and nothing else; in the
# archive also the names that the library's files share.
check_exports() {
  built libtidemill.so && built libtidemill.a || return
  nm -D --defined-only "$build/libtidemill.so" |
    awk '$NF !~ /^tm_[a-z]/ { print "libtidemill.so exports " $NF }'
  nm -g --defined-only "$build/libtidemill.a" |
    awk 'NF == 3 && $3 !~ /^tm_/ { print "libtidemill.a exports " $3 }'
}

# State that two hosts in one process would share. Constants that hold addresses lie in
# .data.rel.ro, which is read-only once the program runs; every other data section can be written.
check_globals() {
  built libtidemill.a || return
  objdump -t "$build/libtidemill.a" | awk -F '\t' '
    /:     file format/ { split($0, part, ":"); object = part[1] }
    NF == 2 {
      count = split($1, left, " "); section = left[count]
      split($2, right, " "); name = right[2]; if (name ~ /^\./) name = right[3]
      if (name == section || name == "") next
      if (section ~ /^\.data\.rel\.ro/) next
      if (section ~ /^\.(data|bss|tdata|tbss)/ || section == "*COM*")
        print object ": " name " can be written (" section ")"
    }'
}

# The library ends no process, prints nothing and handles no signal. A use of stderr or stdout is one
# of these symbols, whatever function it is for; assert() is __assert_fail. pthread_sigmask may be:
# a worker keeps the process's signals from its own thread.
check_forbidden() {
  built libtidemill.a || return
  nm -A -u "$build/libtidemill.a" | awk '
    BEGIN {
      count = split("exit _exit _Exit quick_exit abort __assert_fail stdout stderr printf vprintf " \
        "puts putchar perror psignal psiginfo __printf_chk __vprintf_chk dprintf vdprintf " \
        "__dprintf_chk __vdprintf_chk err errx verr verrx warn warnx vwarn vwarnx error " \
        "error_at_line syslog vsyslog __syslog_chk __vsyslog_chk signal sigaction bsd_signal " \
        "__sysv_signal sigprocmask raise kill killpg pthread_kill system", names, " ")
      for (i = 1; i <= count; i++) bad[names[i]] = 1
    }
    { sub(/@.*/, "", $NF) }
    $NF in bad { print $1 " " $NF " has no place in the library" }'
}

check_luacheck() {
  lua_files | grep -v '^tests/' | xargs luacheck -q --no-color --formatter plain
  lua_files | grep '^tests/' | xargs -r luacheck -q --no-color --formatter plain --std lua54+busted
}

# varFuncNullUB is about systems whose NULL is no pointer.
check_cppcheck() {
  # shellcheck disable=SC2046
  cppcheck -q -j2 --std=c11 --enable=warning,performance,portability --inline-suppr \
    --suppress=missingIncludeSystem --suppress=varFuncNullUB -D_GNU_SOURCE \
    --error-exitcode=1 -I. -Ihost -Ihost/include $(c_files | grep '\.c$')
}

# One file per process: version 14 keeps pointers of one file's names for the next, and then takes
# an innocent call for va_copy.
check_tidy() {
  clang_is_14 clang-tidy
  { printf 'exec clang-tidy --quiet "$@" --'; sed "s/.*/ '&'/" "$scratch/flags" | tr -d '\n'; } \
    >"$scratch/tidy.sh"
  c_files | grep '\.c$' | xargs -P2 -n1 sh "$scratch/tidy.sh" 2>"$scratch/tidy.err" ||
    grep -v 'warnings* generated\|warnings* treated as error' "$scratch/tidy.err"
}

failed=0
# shellcheck disable=SC2086 # a list of words
[ "$#" -gt 0 ] || set -- $all
for name; do
  case " $all " in
  *" $name "*) ;;
  *)
    echo "lint.sh: no check is called $name; there are: $all" >&2
    exit 2
    ;;
  esac
  "check_$name" >"$scratch/findings" 2>&1
  status=$?
  if [ "$status" -eq 0 ] && ! [ -s "$scratch/findings" ]; then
    echo "ok $name"
  else
    failed=1
    echo "not ok $name"
    cat "$scratch/findings"
  fi
done
exit "$failed"
