#!/bin/bash
# bench/versions.sh VERSIONS DIR SECONDS - new versions of scripts while a server runs: what they do to 64
# busy conversations, and the memory that a further one takes. VERSIONS is bench/versions.c, compiled.
set -eu
versions=$1 dir=$(mktemp -d "$2/versions.XXXXXX") seconds=$3
trap 'rm -rf "$dir"' EXIT

"$versions" reload "$dir/reload.db" "$dir/reload" "$seconds"
for system in bench/systems/least scripts/customer_service; do
  name=$(basename "$system")
  "$versions" memory "$dir/$name.db" "$dir/$name" "$system" | tee "$dir/$name.out"
done
number() { grep -o '[0-9]* KiB' "$dir/$1.out" | cut -d' ' -f1; }
echo "a version beyond the runtime's own code: $(($(number customer_service) - $(number least))) KiB" \
  "per worker (at most 150)"
