#!/usr/bin/env bash
# Checks that every file of an index comes through the mirror byte for byte. Starts a mirror, requests all files, and
# compares them with git (every_file.py, which can check any running mirror).
#
#   every_file.sh [CRATES]      250000 crates
#
# The index comes from BENCH_INDEX or MAKE_INDEX, or is a simple one: see first_snapshot.sh. Needs git, python3 and
# cargo, and space for two copies of the index in TMPDIR.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

need git python3
build
make_index "${1:-250000}"
serve_index
start_mirror 0
watch_memory "$process" "$temporary/peak"
wait_until_ready
python3 "$compare/every_file.py" "$index" "http://127.0.0.1:$port"
echo "the mirror: RssAnon $(<"$temporary/peak") kB at its peak"
