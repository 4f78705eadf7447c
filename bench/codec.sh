#!/bin/bash
# bench/codec.sh TURNS DIR SECONDS - what compressing and sealing everything costs: the library's turns
# with and without, on SQLite, in turn in one run; and how many bytes are written in each case.
set -eu
turns=$1 dir=$(mktemp -d "$2/codec.XXXXXX") seconds=$3
trap 'rm -rf "$dir"' EXIT

general=workflow_persistence.general
coded="$general.enable_compression=true $general.enable_encryption=true \
$general.encryption_key=$(head -c 32 /dev/urandom | base64)"

measure() { # NAME SETTINGS
  rm -f "$dir"/*.db*
  BENCH_STORE=$2 "$turns" throughput "$dir/turns.db" "$seconds" | sed "s/^library/$1/" | tee -a "$dir/out"
}
median() { sed -n "s/^$1: \([0-9.]*\) .*/\1/p" "$dir/out" | sort -n | sed -n 2p; }

for _ in 1 2 3; do
  measure plain ''
  measure coded "$coded"
done
awk -v a="$(median coded)" -v b="$(median plain)" \
  'BEGIN { printf "compressed and sealed / plain: %.3f (at least 0.75)\n", a / b }'
