#!/usr/bin/env bash
# What a view costs: time, processor time and memory to the first view of an index, and for following refreshes that change
# 5 crates each, without rules and with a rule that shows every third version as yanked.
#
#   view.sh [CRATES [REFRESHES]]      250000 crates, 50 refreshes
#
# The index comes from BENCH_INDEX or MAKE_INDEX, or is a simple one: see first_snapshot.sh. It is copied, and the copy
# gets the commits. The time to the first view includes the clone, so the difference between the two lines is the rule's.
# Needs git, python3 and cargo, room for three copies of the index in TMPDIR, and a bit more than a second per refresh.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

crates=${1:-250000}
refreshes=${2:-50}
need git python3

(cd "$root" && cargo build --locked --release --quiet --features bench-rules)
make_own_index "$crates"
serve_index
echo "index: $(git -C "$index" ls-tree -r --name-only HEAD | wc -l) files"
for rules in none every-third-yanked; do
    settings=(PUBLIC_URL=http://mirror.example)
    [ "$rules" = none ] || settings+=(BENCH_EVERY_THIRD_YANKED=1)
    echo
    echo "rules: $rules"
    began=$(now)
    start_mirror 1 "${settings[@]}"
    watch_memory "$process" "$temporary/memory-$rules"
    wait_until_ready
    echo "first view: $(since "$began") s, processor time $(processor_time "$process") s," \
        "RssAnon $(of_status "$process" RssAnon) kB, at most $(<"$temporary/memory-$rules") kB"
    python3 "$compare/refreshes.py" "$index" "$port" "$process" "$refreshes" || { cat "$mirror_log" >&2; exit 1; }
    stop "$process"
    began=$(now)
    start_mirror 1 "${settings[@]}"
    wait_until_ready
    echo "after a restart: $(since "$began") s, processor time $(processor_time "$process") s"
    stop "$process"
    rm -rf "$temporary/data"
done
