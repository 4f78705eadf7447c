#!/bin/bash
# run_tests.sh PROGRAM... - runs each test program with a time limit (TEST_TIMEOUT seconds), TEST_JOBS at
# a time, the longest ones first; shows the output of those that fail but for their cases that passed, a
# line for the others; ends with "N passed, N failed" (programs).
set -u
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
export results

run_one() {
  log=$(mktemp -p "$results")
  SECONDS=0
  if timeout -k 5 "${TEST_TIMEOUT:-600}" "$1" >"$log" 2>&1; then
    echo passed >>"$results/all"
    printf 'ok %s (%s cases, %s s)\n' "$1" "$(grep -c '\[       OK \]' "$log")" "$SECONDS"
  else
    echo failed >>"$results/all"
    { printf 'not ok %s\n' "$1"; grep -avE '^\[ RUN |^\[       OK ' "$log"; tail -n 1 "$log"; }
  fi >"$log.said"
  cat "$log.said"
  rm -f "$log" "$log.said"
}
export -f run_one

long='memory/sweep_test|hostile/hostile_test|host/(stress|model|thirty_days)_test|storage/tenants_test'
touch "$results/all"
{ printf '%s\n' "$@" | grep -E "$long"; printf '%s\n' "$@" | grep -vE "$long"; } |
  xargs -r -P "${TEST_JOBS:-2}" -I{} bash -c 'run_one {}'
passed=$(grep -c passed "$results/all") failed=$(grep -c failed "$results/all")
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ] && [ "$passed" -eq "$#" ]
