#!/usr/bin/env bash
# Kills the mirror with SIGKILL at random moments of clones, refreshes and upkeep, and checks after each restart that every
# file that it serves is right.
#
#   kill_loop.sh [CRATES] [ROUNDS]      2000 crates, 60 rounds of two kills each
#
# Packs are rolled up at 4 instead of 64, and a clone is replaced when 100 kB of it are old. So kills hit upkeep as
# often as anything else. The index comes from BENCH_INDEX or MAKE_INDEX, or is a simple one: see first_snapshot.sh. It
# is copied, and the copy gets the commits.
#
# Needs git, python3 and cargo.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

crates=${1:-2000}
rounds=${2:-60}
need git python3

mirror=$(build_bench quick_mirror)
make_own_index "$crates"
serve_index
PORT=$(free_port)
export PORT BIND_ADDRESS=127.0.0.1 RUST_LOG=info,crates_io_mirror::request=off
python3 "$compare/kill_loop.py" "$index" "$url" "$temporary" "$rounds" "$mirror" 5 4 100000 ||
    { tail -40 "$temporary/mirror.log" >&2; exit 1; }
echo "upkeep done: $(grep -c 'small packs were rolled up' "$temporary/mirror.log" || true) times, clones: $(grep -c 'serving the index ' "$temporary/mirror.log" || true), repairs: $(grep -c 'set aside' "$temporary/mirror.log" || true)"
