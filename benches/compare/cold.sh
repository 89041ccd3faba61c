#!/usr/bin/env bash
# The speed of files that are in no cache yet, and the memory. The first part is a cold pass. A mirror that has just
# started gets one request for each of many random index files, over 8 and over 32 connections. nginx, with the same
# files on disk, gets the same requests in alternating rounds. Prints files/s, latencies and the largest anonymous
# memory of the mirror. The second part is memory under load. wrk requests all files of the index in random order on 32
# connections, every second time compressed. Meanwhile the upstream changes, and the mirror follows it every second.
#
#   cold.sh [FILES] [ROUNDS] [SECONDS]      20000 files, 3 rounds, 30 seconds of load
#
# The index comes from BENCH_INDEX or MAKE_INDEX, or is a simple one of 250000 crates: see first_snapshot.sh. It is copied,
# and the copy gets commits.
#
# "Cold" means the program, not the machine: the packs of the clone and the files of nginx are in the page cache. nginx
# neither finds a file in a pack nor compresses it. The mirror compresses each file that it reads, for later requests.
# The client is benches/each_once.rs. The last column is the client's share of all processor time. The rate of nginx,
# with the same client, shows what the client can do.
#
# Needs nginx, wrk, git, python3 and cargo, and space for three copies of the index in TMPDIR.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

count=${1:-20000}
rounds=${2:-3}
seconds=${3:-30}
need nginx wrk git python3

build
each_once=$(build_bench each_once)
make_index 250000
if [ -n "${BENCH_INDEX:-}" ]; then
    cp -a "$index" "$temporary/index.git"
    index=$temporary/index.git
fi
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'

# Index files are in a directory that is not hidden.
git -C "$index" ls-tree -r --name-only HEAD | grep / | grep -v '^\.' >"$temporary/all"
# The seed is fixed: two runs request the same files.
python3 -c '
import random, sys
paths = open(sys.argv[1]).read().splitlines()
chosen = random.Random(5).sample(paths, min(int(sys.argv[2]), len(paths)))
print("\n".join(chosen))' "$temporary/all" "$count" >"$temporary/chosen"
sed 's|^|/index/|' "$temporary/chosen" >"$temporary/chosen-paths"

mkdir -p "$temporary/www/index"
checkout=(env GIT_INDEX_FILE="$temporary/git-index" git --git-dir="$index" --work-tree="$temporary/www/index")
"${checkout[@]}" read-tree HEAD
"${checkout[@]}" checkout-index --stdin <"$temporary/chosen"

nginx_port=$(free_port)
start_nginx <<<"server { listen 127.0.0.1:$nginx_port; root $temporary/www; }"
wait_for_port "$nginx_port"
serve_index
start_mirror 0
watch_memory "$process" "$temporary/peak-clone"
wait_until_ready
echo "index: $(wc -l <"$temporary/all") files, of which $(wc -l <"$temporary/chosen") are asked for"
echo "first clone: RssAnon $(<"$temporary/peak-clone") kB at its peak, $(of_status "$process" RssAnon) kB after it"
stop "$process"

# ask_once SERVER PORT CONNECTIONS: writes rate, p50, p99 and max into a file each, and the client's share into $share.
ask_once() {
    local result=$temporary/$1-$3 TIMEFORMAT='%R %U %S' bytes
    { time "$each_once" "$2" "$3" "$temporary/chosen-paths" >"$temporary/report" 2>"$temporary/errors"; } \
        2>"$temporary/processor-time" || { cat "$temporary/errors" "$mirror_log" >&2; exit 1; }
    read -r rate p50 p99 max bytes <"$temporary/report"
    echo "$rate" >>"$result-rate"
    echo "$p50" >>"$result-p50"
    echo "$p99" >>"$result-p99"
    echo "$max" >>"$result-max"
    # Both servers must have sent the same bytes.
    [ -e "$temporary/bytes" ] || echo "$bytes" >"$temporary/bytes"
    [ "$bytes" = "$(<"$temporary/bytes")" ] || { echo "$1 sent $bytes bytes, others $(<"$temporary/bytes")" >&2; exit 1; }
    share=$(awk -v processors="$(nproc)" '{ printf "%.0f", 100 * ($2 + $3) / ($1 * processors) }' "$temporary/processor-time")
}
columns='%-8s %2s connections  %-6s %8.0f files/s  p50 %7.2f ms  p99 %7.2f ms  max %7.2f ms'

for ((round = 1; round <= rounds; round++)); do
    for connections in 8 32; do
        # A new process for each pass. It finds the clone of the first one.
        start_mirror 0
        wait_until_ready
        peak=$temporary/peak-$round-$connections
        watch_memory "$process" "$peak"
        for server in nginx mirror; do
            server_port=$nginx_port
            [ $server = nginx ] || server_port=$port
            ask_once $server "$server_port" $connections
            # shellcheck disable=SC2059  # one format for all rows
            printf "$columns" "round $round" $connections $server "$rate" "$p50" "$p99" "$max"
            [ $server = nginx ] || printf '  RssAnon %d kB' "$(tee -a "$temporary/peaks" <"$peak")"
            printf '  client %d %%\n' "$share"
        done
        stop "$process"
    done
done
echo
for connections in 8 32; do
    for server in nginx mirror; do
        result=$temporary/$server-$connections
        # shellcheck disable=SC2059
        printf "$columns\n" median $connections $server "$(median <"$result-rate")" "$(median <"$result-p50")" \
            "$(median <"$result-p99")" "$(median <"$result-max")"
    done
done
echo "cold pass: the mirror's RssAnon at its peak, the largest of all rounds: $(sort -g "$temporary/peaks" | tail -n 1) kB"

cat >"$temporary/all.lua" <<LUA
local threads = 0
function setup(thread)
    threads = threads + 1
    thread:set("number", threads)
end
local paths, at, compressed = {}, 0, { ["Accept-Encoding"] = "gzip" }
function init()
    for line in io.lines("$temporary/all") do paths[#paths + 1] = "/index/" .. line end
    -- Each thread has an order of its own.
    math.randomseed(number)
    for i = #paths, 2, -1 do
        local j = math.random(i)
        paths[i], paths[j] = paths[j], paths[i]
    end
end
function request()
    at = at % #paths + 1
    return wrk.format("GET", paths[at], at % 2 == 0 and compressed or nil)
end
LUA
# With a clone of its own, as on a disk that is empty at every start, because cloning leaves memory behind.
rm -rf "$temporary/data"
start_mirror 1
watch_memory "$process" "$temporary/peak-load"
wait_until_ready
echo
echo "under load: RssAnon $(of_status "$process" RssAnon) kB before"
run_in_background "$temporary/wrk" wrk -t2 -c32 -d"${seconds}s" --latency -s "$temporary/all.lua" "http://127.0.0.1:$port"
load=$last
# A refresh takes a second or two with its pause. So these end before the load does.
python3 "$compare/refreshes.py" "$index" "$port" "$process" $((seconds / 3)) >"$temporary/refreshes" ||
    { cat "$mirror_log" >&2; exit 1; }
kill -0 "$load" 2>/dev/null || echo 'the load ended before the refreshes did: take more SECONDS'
wait "$load"
grep -E '50%|99%|requests in|Requests/sec|Socket errors|Non-2xx' "$temporary/wrk"
grep RssAnon "$temporary/refreshes"
echo "under load: RssAnon $(<"$temporary/peak-load") kB at its peak, $(of_status "$process" RssAnon) kB after it"
cat "$mirror_log"
