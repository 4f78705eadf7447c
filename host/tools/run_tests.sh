#!/bin/sh
# run_tests.sh PROGRAM... - runs each test program with a time limit; shows the output of those that
# fail, a line for the others; ends with "N passed, N failed" (programs).
passed=0 failed=0
for t in "$@"; do
  log=$(mktemp)
  if timeout -k 5 "${TEST_TIMEOUT:-300}" "$t" >"$log" 2>&1; then
    passed=$((passed + 1))
    printf 'ok %s (%s)\n' "$t" "$(grep -c '\[       OK \]' "$log") cases"
  else
    failed=$((failed + 1))
    printf 'not ok %s\n' "$t"
    cat "$log"
  fi
  rm -f "$log"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
