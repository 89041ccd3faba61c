#!/usr/bin/env bash
# Time travel: the speed of index files as of a time that are in no cache yet, and the memory. The first part is a cold
# pass. A mirror that has just started gets one request for each of many random index files below /at/TIME/index/, over
# 1, 8 and 32 connections. Another new mirror gets requests for the same files below /index/, in alternating rounds.
# Prints files/s, latencies and the largest anonymous memory. Each connection sends a request after the previous answer
# (closed loop). So with more connections than processors, most of the latency is waiting. In the second part, one
# mirror gets requests for the same files as of many times: more files than it remembers. Memory is printed after each
# time.
#
#   at.sh [FILES] [ROUNDS] [TIME] [TIMES]      20000 files, 3 rounds, as of 2023-01-01; 8 times
#
# The index comes from BENCH_INDEX or MAKE_INDEX, or is a simple one of 250000 crates without publish times, which is
# served in full at every time: see first_snapshot.sh. Only files with a version at TIME are requested. The times of the
# second part are TIME and one second more each, so every file has a version at each of them.
#
# "Cold" means the program, not the machine: the packs of the clone are in the page cache. The client is
# benches/each_once.rs. The last column is the client's share of all processor time.
#
# Needs git, python3 and cargo, and space for a copy of the index in TMPDIR.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

count=${1:-20000}
rounds=${2:-3}
time=${3:-2023-01-01}
times=${4:-8}
need git python3

build
each_once=$(build_bench each_once)
make_index 250000
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'

# Index files are in a directory that is not hidden. The seed is fixed: two runs request the same files.
git -C "$index" ls-tree -r HEAD | python3 - "$index" "$count" "$time" "$temporary/chosen" 3<&0 <<'CHOOSE'
import json, os, random, subprocess, sys
index, count, time, chosen = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
time = time if "T" in time else time + "T00:00:00Z"
entries = []
for line in os.fdopen(3):
    head, path = line.rstrip("\n").split("\t")
    if "/" in path and not path.startswith("."):
        entries.append((head.split()[2], path))
random.Random(5).shuffle(entries)
git = subprocess.Popen(["git", "-C", index, "cat-file", "--batch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
lines_left = lines_seen = found = 0
with open(chosen, "w") as file:
    for blob, path in entries:
        if found == count:
            break
        git.stdin.write(blob.encode() + b"\n")
        git.stdin.flush()
        size = int(git.stdout.readline().split()[2])
        content = git.stdout.read(size + 1)[:size]
        published = [json.loads(line).get("pubtime", "") for line in content.splitlines() if line]
        left = sum(1 for at in published if at <= time)
        if left:
            found += 1
            lines_seen += len(published)
            lines_left += left
            file.write(path + "\n")
git.stdin.close()
git.wait()
print(f"{found} of {len(entries)} files, as of {time}: {lines_left} of their {lines_seen} versions")
CHOOSE
sed "s|^|/at/$time/index/|" "$temporary/chosen" >"$temporary/paths-at"
sed 's|^|/index/|' "$temporary/chosen" >"$temporary/paths-now"

serve_index
start_mirror 0
wait_until_ready
echo "after the first clone: RssAnon $(of_status "$process" RssAnon) kB"
stop "$process"

# ask_once PATHS CONNECTIONS RESULT: writes rate, p50, p99 and max into a file each, and the client's share into $share.
ask_once() {
    local TIMEFORMAT='%R %U %S' bytes
    { time "$each_once" "$port" "$2" "$1" >"$temporary/report" 2>"$temporary/errors"; } \
        2>"$temporary/processor-time" || { cat "$temporary/errors" "$mirror_log" >&2; exit 1; }
    # shellcheck disable=SC2034  # both sides send different bytes
    read -r rate p50 p99 max bytes <"$temporary/report"
    echo "$rate" >>"$3-rate"
    echo "$p50" >>"$3-p50"
    echo "$p99" >>"$3-p99"
    echo "$max" >>"$3-max"
    share=$(awk -v processors="$(nproc)" '{ printf "%.0f", 100 * ($2 + $3) / ($1 * processors) }' "$temporary/processor-time")
}
columns='%-8s %2s connections  %-3s %8.0f files/s  p50 %7.2f ms  p99 %7.2f ms  max %7.2f ms'

for ((round = 1; round <= rounds; round++)); do
    for connections in 1 8 32; do
        for side in now at; do
            # A new process for each pass. It finds the clone of the first one.
            start_mirror 0
            wait_until_ready
            peak=$temporary/peak-$round-$connections-$side
            watch_memory "$process" "$peak"
            ask_once "$temporary/paths-$side" $connections "$temporary/$side-$connections"
            stop "$process"
            # shellcheck disable=SC2059  # one format for all rows
            printf "$columns" "round $round" $connections $side "$rate" "$p50" "$p99" "$max"
            printf '  RssAnon %d kB  client %d %%\n' "$(tee -a "$temporary/peaks-$side" <"$peak")" "$share"
        done
    done
done
echo
for connections in 1 8 32; do
    for side in now at; do
        result=$temporary/$side-$connections
        # shellcheck disable=SC2059
        printf "$columns\n" median $connections $side "$(median <"$result-rate")" "$(median <"$result-p50")" \
            "$(median <"$result-p99")" "$(median <"$result-max")"
    done
done
for side in now at; do
    echo "cold pass, $side: RssAnon at its peak, the largest of all rounds: $(sort -g "$temporary/peaks-$side" | tail -n 1) kB"
done

start_mirror 0
watch_memory "$process" "$temporary/peak-times"
wait_until_ready
echo
began=$(date -u -d "$time" +%s)
for ((number = 0; number < times; number++)); do
    then=$(date -u -d "@$((began + number))" +%Y-%m-%dT%H:%M:%SZ)
    sed "s|^|/at/$then/index/|" "$temporary/chosen" >"$temporary/paths-then"
    ask_once "$temporary/paths-then" 32 "$temporary/times"
    printf 'as of %s: %8.0f files/s  p99 %7.2f ms  RssAnon %d kB\n' "$then" "$rate" "$p99" "$(of_status "$process" RssAnon)"
done
echo "many times: RssAnon $(<"$temporary/peak-times") kB at its peak"
cat "$mirror_log"
