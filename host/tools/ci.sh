#!/bin/bash
# ci.sh - everything a change must pass, from a clean checkout: tests, lint, sanitizers, fuzzers. With
# TIDEMILL_NIGHTLY=1 tests and fuzzers are the long versions (the sanitizers would take ten times as
# long for the same). Stops at the first part that fails; says at the end how long each took.
set -eu
cd "$(dirname "$0")/../.."
export DEBIAN_FRONTEND=noninteractive
exec </dev/null
fuzz_seconds=30
if [ "${TIDEMILL_NIGHTLY:-0}" = 1 ]; then
  fuzz_seconds=120
  export TEST_TIMEOUT=${TEST_TIMEOUT:-7200}
fi

times=
report() { printf 'seconds:%s\n' "$times"; }
trap report EXIT

part() {
  name=$1
  shift
  began=$SECONDS
  "$@"
  times="$times $name $((SECONDS - began))"
}

part test make -j2 -s test
part lint make -s lint
part sanitize env -u TIDEMILL_NIGHTLY TEST_JOBS=5 make -j2 -s sanitize
part fuzz make -j2 -s fuzz FUZZ_SECONDS="${FUZZ_SECONDS:-$fuzz_seconds}"
