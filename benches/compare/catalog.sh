#!/usr/bin/env bash
# What the catalog costs: the time to build it, memory, size on disk, the time to start from disk, the time to follow a
# commit with 5 changed crates, and the time of questions (200 searches per second in an open loop, without HTTP).
#
#   catalog.sh [CRATES [REFRESHES]]      250000 crates, 20 refreshes
#
# The index comes from BENCH_INDEX or MAKE_INDEX, or is a simple one: see first_snapshot.sh. It is copied, and the copy
# gets the commits. MOST_USED is the crate whose dependents are listed (serde). The mirror logs the times to build and
# to follow, which begin when it has the view. Needs git, python3 and cargo, and space for three copies of the index in
# TMPDIR.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

crates=${1:-250000}
refreshes=${2:-20}
need git python3

program=$(cd "$root" && cargo build --locked --release --quiet --features bench-rules --bench catalog \
    --message-format=json | python3 -c '
import json, sys
for message in map(json.loads, sys.stdin):
    if message.get("target", {}).get("name") == "catalog" and message.get("executable"):
        print(message["executable"])')
make_own_index "$crates"
serve_index
git=(git -C "$index" -c safe.directory=*)
echo "index: $("${git[@]}" ls-tree -r --name-only HEAD | wc -l) files"

# Starts the program. Its input is fd 3, and its output is in the file $answers.
start_program() {
    answers=$temporary/answers-$1
    mirror_log=$answers
    rm -f "$temporary/orders"
    mkfifo "$temporary/orders"
    env BIND_ADDRESS=127.0.0.1 PORT=0 DATA_DIR="$temporary/data" GIT_REPO_URL="$url" LOG_FORMAT=text \
        RUST_LOG=crates_io_mirror=info "$program" run <"$temporary/orders" >"$answers" 2>&1 &
    process=$!
    started+=("$process")
    exec 3>"$temporary/orders"
}
order() {
    local before deadline=$((SECONDS + 900))
    before=$(grep -c "^$2" "$answers" || true)
    echo "$1" >&3
    until [ "$(grep -c "^$2" "$answers" || true)" -gt "$before" ]; do
        kill -0 "$process" 2>/dev/null || { cat "$answers" >&2; exit 1; }
        [ $SECONDS -lt $deadline ] || { echo "no answer to $1" >&2; exit 1; }
        sleep 0.02
    done
}
times() { grep -a "the catalog is up to date: $1" "$answers" | sed 's/.*catalog.milliseconds=\([0-9]*\).*/\1/'; }
memory() { of_status "$process" RssAnon; }

head=$("${git[@]}" rev-parse HEAD)
start_program build
# Without fd 3, because the program ends when its input is closed everywhere.
watch_memory "$process" "$temporary/memory" 3>&-
order "wait $head" at
echo "built in $(times built) ms; RssAnon $(memory) kB, at most $(<"$temporary/memory") kB on the way (with the clone)"
echo "on disk: $(du -ck "$temporary"/data/catalog/*.sqlite* | tail -1 | cut -f1) kB"
exec 3>&-
wait "$process" || true

start_program restart
began=$(now)
order "wait $head" at
echo "from disk: $(since "$began") s after the start of the process, $(times followed | head -1) ms of them the catalog's; RssAnon $(memory) kB"
watch_memory "$process" "$temporary/memory-follow" 3>&-
python3 - "$compare" "$index" "$refreshes" "$temporary/commits" <<'COMMITS' 3>&- &
import sys
sys.path.insert(0, sys.argv[1])
import refreshes
index = refreshes.Index(sys.argv[2])
with open(sys.argv[4], "w") as commits:
    for number in range(int(sys.argv[3])):
        print(index.commit(number), file=commits, flush=True)
        refreshes.time.sleep(1)
COMMITS
wait $!
order "wait $(tail -1 "$temporary/commits")" at
echo "followed $(times followed | tail -n +2 | wc -l) commits of 5 crates in $(times followed | tail -n +2 | median) ms each (median), at most $(times followed | tail -n +2 | sort -g | tail -1) ms; RssAnon $(memory) kB, at most $(<"$temporary/memory-follow") kB"
checksum=$("${git[@]}" cat-file blob "HEAD:$("${git[@]}" ls-tree -r --name-only HEAD | grep -v '^\.' | grep / | tail -1)" |
    sed -n '1s/.*"cksum": *"\([0-9a-f]*\)".*/\1/p')
order "ask ${MOST_USED:-serde} $checksum" asked
grep -a 'median' "$answers"
echo "RssAnon $(memory) kB"
exec 3>&-
wait "$process" || true
