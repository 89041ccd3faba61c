#!/usr/bin/env bash
# What a view costs: time, processor time and memory to the first view of an index, and for refreshes that change 5
# crates each. Without rules, with a rule that shows every third version as yanked, and with a minimum publish age.
#
#   view.sh [CRATES [REFRESHES]]      250000 crates, 50 refreshes
#
# The index comes from BENCH_INDEX or MAKE_INDEX, or is a simple one: see first_snapshot.sh. It is copied, and the copy
# gets the commits. RULES="none hold" measures only these. HOLD is the minimum publish age (7 days). Choose it so that
# as many versions are held as you want to measure. The time to the first view includes the clone, so the difference
# between two lines is that of the rule. Needs git, python3 and cargo, space for three copies of the index in TMPDIR,
# and a bit more than a second per refresh.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

crates=${1:-250000}
refreshes=${2:-50}
need git python3

read -ra all_rules <<<"${RULES:-none every-third-yanked hold}"
(cd "$root" && cargo build --locked --release --quiet --features bench-rules)
make_own_index "$crates"
serve_index
echo "index: $(git -C "$index" ls-tree -r --name-only HEAD | wc -l) files"
for rules in "${all_rules[@]}"; do
    settings=(PUBLIC_URL=http://mirror.example)
    case $rules in
        none) ;;
        every-third-yanked) settings+=(BENCH_EVERY_THIRD_YANKED=1) ;;
        hold) settings+=("MIN_PUBLISH_AGE=${HOLD:-7 days}") ;;
        *) echo "no such rules: $rules" >&2; exit 2 ;;
    esac
    echo
    echo "rules: $rules"
    began=$(now)
    start_mirror 1 "${settings[@]}"
    watch_memory "$process" "$temporary/memory-$rules"
    wait_until_ready
    echo "first view: $(since "$began") s, processor time $(processor_time "$process") s," \
        "RssAnon $(of_status "$process" RssAnon) kB, at most $(<"$temporary/memory-$rules") kB"
    # The catalog is built for some more seconds, which must not count for the refreshes.
    python3 -c '
import json, sys, time, urllib.request
while True:
    with urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/status") as answer:
        if json.load(answer)["catalog"] == "ready":
            break
    time.sleep(0.2)' "$port"
    [ "$rules" != hold ] || python3 -c '
import json, sys, urllib.request
with urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/policy") as answer:
    print("versions:", json.load(answer)["versions"])' "$port"
    python3 "$compare/refreshes.py" "$index" "$port" "$process" "$refreshes" || { cat "$mirror_log" >&2; exit 1; }
    stop "$process"
    began=$(now)
    start_mirror 1 "${settings[@]}"
    wait_until_ready
    echo "after a restart: $(since "$began") s, processor time $(processor_time "$process") s"
    stop "$process"
    rm -rf "$temporary/data"
done
