#!/bin/sh
# install.sh run|test|lint|bench - makes sure that the Debian packages are there which building and
# running, testing, linting or measuring need. Says which are missing and installs them without
# questions; when nothing is missing it does nothing and needs no network.
set -eu
export LC_ALL=C

run="gcc libc6-dev pkg-config lua5.4 liblua5.4-dev libuv1-dev libcurl4-openssl-dev libmicrohttpd-dev
  libsqlite3-dev libhiredis-dev libpq-dev libzstd-dev libyaml-dev libjansson-dev libsodium-dev
  libmimalloc-dev"
test="libcmocka-dev lua-busted sqlite3 redis-server postgresql util-linux curl procps"
lint="clang clang-format clang-tidy cppcheck lua-check libclang-rt-14-dev shellcheck"
bench="wrk redis-server postgresql procps"

say() { printf '%s\n' "$*" >&2; }

# Any Node of version 18 or newer will do, wherever it came from.
node_is_new() {
  version=$(node --version 2>/dev/null) || return 1
  major=${version#v}
  major=${major%%.*}
  [ "$major" -ge 18 ] 2>/dev/null
}

case ${1:-} in
run) wanted=$run ;;
test) wanted="$run $test" ;;
lint) wanted="$run $test $lint" ;;
bench) wanted="$run $bench" ;;
*)
  say "usage: install.sh run|test|lint|bench"
  exit 2
  ;;
esac
case $1 in
test | lint) node_is_new || wanted="$wanted nodejs" ;;
esac

missing_of() {
  for package; do
    status=$(dpkg-query -W -f='${db:Status-Status} ' "$package" 2>/dev/null) || status=
    case " $status" in
    *" installed "*) ;;
    *) printf ' %s' "$package" ;;
    esac
  done
}

# RUNLEVEL=1: servers among the packages are not started; tests start their own.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 "$@"
  else
    sudo env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 "$@"
  fi
}

if ! command -v dpkg-query >/dev/null; then
  say "This is no Debian system, so nothing is installed. 'make $1' needs what these packages hold:"
  # shellcheck disable=SC2086
  say $wanted
  say "Install them with your own package manager, then run 'make' ('make check' for the tests)."
  exit 1
fi

# shellcheck disable=SC2086 # a list of words
missing=$(missing_of $wanted)
[ -n "$missing" ] || exit 0

say "missing packages:$missing"
if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
  say "They can only be installed by root, and there is no sudo. As root, run:"
  say "  apt-get update && apt-get install --no-install-recommends$missing"
  exit 1
fi

options="-q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=2"
# A list that cannot be refreshed may still be good enough; installing then says what is wrong.
# shellcheck disable=SC2086
as_root apt-get $options update >&2 || say "apt-get update failed; trying with the lists at hand"
# shellcheck disable=SC2086
as_root apt-get $options install --no-install-recommends $missing >&2 || true

# shellcheck disable=SC2086
still=$(missing_of $missing)
if [ -n "$still" ]; then
  say "These packages could not be installed (see apt-get's message above):$still"
  say "Check the network and /etc/apt/sources.list, then run the command again."
  exit 1
fi
