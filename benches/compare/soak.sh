#!/usr/bin/env bash
# Weeks of refreshes in minutes. The upstream gets thousands of commits that change 1 to 5 crates each. The mirror
# follows with a pause of milliseconds, and clients read the sparse and the git index all the time. Prints packs, disk
# and memory from time to time, and the slowest requests. Fails if a request fails, or if any content is wrong.
#
#   soak.sh [CRATES] [REFRESHES] [PACKS BYTES]      250000 crates, 5000 refreshes, the mirror's own limits
#
# With PACKS and BYTES upkeep comes earlier: packs are rolled up at PACKS packs, and a clone with BYTES bytes of old
# history is replaced, which otherwise takes a month.
#
# The index comes from BENCH_INDEX or MAKE_INDEX, or is a simple one: see first_snapshot.sh. It is copied, and the copy
# gets the commits.
#
# Needs git, python3 and cargo, and space for six copies of the index in TMPDIR.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

crates=${1:-250000}
refreshes=${2:-5000}
limits=("${@:3}")
need git python3

mirror=$(build_bench quick_mirror)
make_own_index "$crates"
serve_index
port=$(free_port)
run_in_background "$temporary/mirror.log" env BIND_ADDRESS=127.0.0.1 PORT="$port" DATA_DIR="$temporary/data" \
    GIT_REPO_URL="$url" PUBLIC_URL="http://127.0.0.1:$port" RUST_LOG=info,crates_io_mirror::request=off "$mirror" 50 "${limits[@]}"
process=$last
wait_until_ready
echo "index: $(git -C "$index" ls-tree -r --name-only HEAD | wc -l) files; the mirror is process $process"
python3 "$compare/soak.py" "$index" "$port" "$process" "$temporary/data" "$refreshes" ||
    { grep -v "the index has changed" "$temporary/mirror.log" | tail -40 >&2; exit 1; }
echo "times the clone was made smaller: $(grep -c 'small packs were rolled up' "$temporary/mirror.log" || true)," \
    "times it was replaced: $(($(grep -c 'serving the index ' "$temporary/mirror.log") - 1))"
grep -c WARN "$temporary/mirror.log" | sed 's/^/warnings in the log: /' || true
stop "$process"
