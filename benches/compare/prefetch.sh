#!/usr/bin/env bash
# How fast `crates-io-mirror prefetch --all` fills an empty store from an upstream on loopback, for several --jobs, and
# how fast it skips stored files. Beside it curl, which downloads the same files with the same number of connections,
# and neither hashes them nor reads an index. Prints medians.
#
#   prefetch.sh [COUNT] [BYTES] [JOBS...]      5000 files of 50000 bytes, 4 16 32 jobs; ROUNDS=3
#
# The index is already cloned. --dry-run measures the time to open and refresh it and to list all files. Every other
# time includes this.
#
# The written bytes reach the disk after each run and before the next one. Nothing is removed before the end: after
# removals, ext4 makes new files slowly for minutes, because it skips the removed inodes.
#
# Needs nginx, curl, git, python3 and cargo, and space in TMPDIR for 19 copies of the files: 5 GB.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

count=${1:-5000}
bytes=${2:-50000}
jobs=("${@:3}")
[ ${#jobs[@]} -gt 0 ] || jobs=(4 16 32)
rounds=${ROUNDS:-3}
need nginx curl git python3

build
make_crates "${count}x$bytes"
nginx_port=$(free_port)
start_nginx <<<"server { listen 127.0.0.1:$nginx_port; root $temporary/www; access_log $temporary/upstream.log combined; }"
wait_for_port "$nginx_port"
read -ra upstream < <(fetch_from "$nginx_port")

# prefetch ARGUMENT…: fills $store. Sets $took to the seconds, and $asked to the number of requests to the upstream.
prefetch() {
    local began before
    before=$(times_asked)
    began=$(now)
    env DATA_DIR="$temporary/data" STORAGE_URL="$store" GIT_REPO_URL="$url" "${upstream[@]}" \
        "$mirror" prefetch --all "$@" >"$temporary/said" 2>&1 || { tail "$temporary/said" >&2; exit 1; }
    took=$(since "$began")
    asked=$(($(times_asked) - before))
}

paths_at nginx <"$temporary/names" | awk -v base="http://127.0.0.1:$nginx_port" \
    '{ printf "url = \"%s%s\"\noutput = \"%d\"\n", base, $1, NR }' >"$temporary/curl-config"
store=$temporary/store
prefetch --dry-run
for ((round = 1; round <= rounds; round++)); do
    prefetch --dry-run
    echo "$took" >>"$temporary/dry-run"
    for number in "${jobs[@]}"; do
        by_curl=$temporary/by-curl-$round-$number
        store=$temporary/store-$round-$number
        mkdir "$by_curl"
        began=$(now)
        # With several connections, curl's progress cannot be turned off.
        (cd "$by_curl" &&
            curl --fail --parallel --parallel-max "$number" --config "$temporary/curl-config") 2>"$temporary/said" ||
            { cat "$temporary/said" >&2; exit 1; }
        since "$began" >>"$temporary/curl-$number"
        [ "$(find "$by_curl" -type f -size "${bytes}c" | wc -l)" = "$count" ] ||
            { echo 'curl does not have all files' >&2; exit 1; }
        sync -f "$temporary"
        prefetch --jobs "$number"
        [ "$asked" = "$count" ] || { echo "the upstream was asked $asked times for $count files" >&2; exit 1; }
        [ "$(find "$store" -name '*.crate' | wc -l)" = "$count" ] ||
            { echo 'the store does not have all files' >&2; exit 1; }
        echo "$took" >>"$temporary/prefetch-$number"
        sync -f "$temporary"
        prefetch --jobs "$number"
        [ "$asked" = 0 ] || { echo "the upstream was asked $asked times for files that are held" >&2; exit 1; }
        echo "$took" >>"$temporary/again-$number"
        sync -f "$temporary"
    done
    echo "round $round of $rounds" >&2
done

# row NAME JOBS FILE BYTES: without bytes there are no MB/s.
row() {
    median <"$temporary/$3" | awk -v name="$1" -v jobs="$2" -v count="$count" -v bytes="$4" '{
        printf "%-22s %4s jobs %8.2f s %9.0f files/s", name, jobs, $1, count / $1
        print bytes ? sprintf(" %8.0f MB/s", count * bytes / $1 / 1e6) : "" }'
}
echo "$count files of $bytes bytes; --dry-run takes $(median <"$temporary/dry-run") s"
for number in "${jobs[@]}"; do
    row curl "$number" "curl-$number" "$bytes"
    row 'prefetch, empty store' "$number" "prefetch-$number" "$bytes"
    row 'prefetch, all held' "$number" "again-$number" 0
done
