#!/bin/bash
# bench/held.sh - passes on what a bench says. Each line that ends with a figure and its bound,
# "… 0.93 … (at least 0.4)", then says whether that is held; exit code 1 if one is not.
set -eu
held=0 all=0
while IFS= read -r line; do
  if [[ ! $line =~ \(at\ (most|least)\ ([0-9.]+)\)$ ]]; then
    printf '%s\n' "$line"
    continue
  fi
  sense=${BASH_REMATCH[1]} bound=${BASH_REMATCH[2]} figure=nan verdict='not held'
  all=$((all + 1))
  [[ $line =~ ([0-9.]+)(\ [A-Za-z ]+)?\ \(at\ [a-z]+\ [0-9.]+\)$ ]] && figure=${BASH_REMATCH[1]}
  if [ "$figure" != nan ] && awk -v a="$figure" -v b="$bound" -v sense="$sense" \
    'BEGIN { exit !(sense == "most" ? a <= b : a >= b) }'; then
    verdict=held held=$((held + 1))
  fi
  printf '%s: %s\n' "$line" "$verdict"
done
if [ "$held" -lt "$all" ]; then
  echo "not held: $((all - held)) of $all"
  exit 1
fi
echo "held: $held of $all"
