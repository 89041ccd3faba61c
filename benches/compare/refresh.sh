#!/usr/bin/env bash
# What a refresh costs. The upstream gets commits that change 5 random crates each, and the mirror follows with
# REFRESH_INTERVAL_SECS=1. Prints the processor time of the mirror per refresh, and its anonymous memory from time to
# time.
#
#   refresh.sh [CRATES] [REFRESHES]      250000 crates, 200 refreshes
#
# The index comes from BENCH_INDEX or MAKE_INDEX, or is a simple one: see first_snapshot.sh. It is copied, and the copy
# gets the commits: each appends a line to 5 existing files.
#
# The processor time is utime + stime of the whole process between two refreshes, usually in ticks of 10 ms. Nothing is
# subtracted: the network on loopback, the requests of this script to /readyz, and fetches without new commits are
# included. The median of such coarse steps says little. The total divided by the refreshes says more.
#
# Needs git, python3 and cargo, space for two copies of the index in TMPDIR, and a bit more than a second per refresh.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

crates=${1:-250000}
refreshes=${2:-200}
need git python3

build
make_own_index "$crates"
serve_index
start_mirror 1
wait_until_ready
echo "index: $(git -C "$index" ls-tree -r --name-only HEAD | wc -l) files; the mirror is process $process"
python3 "$compare/refreshes.py" "$index" "$port" "$process" "$refreshes" || { cat "$mirror_log" >&2; exit 1; }
