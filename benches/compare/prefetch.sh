#!/usr/bin/env bash
# How fast `crates-io-mirror prefetch --all` fills an empty store from an upstream on loopback, for several --jobs, and how
# fast it passes over files that it holds already. Beside it curl, which downloads the same files so many at a time, and
# neither hashes them nor looks for them in an index. Prints medians.
#
#   prefetch.sh [COUNT] [BYTES] [JOBS...]      5000 files of 50000 bytes, 4 16 32 jobs; ROUNDS=3
#
# The index has been cloned before. What it takes to open it and to bring it up to date, and to make a list of all files, is
# the time of --dry-run, and is in each of the others.
#
# What was written is not yet on the disk when either of them ends, but before the next one begins. Nothing is removed before
# the end: for minutes after that, ext4 is slow to make new files, since it passes over the inodes of those removed.
#
# Needs nginx, curl, git, python3 and cargo, and room in TMPDIR for 19 copies of the files: 5 GB.
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

# prefetch ARGUMENT…: fills $store; leaves the seconds in $took and the number of questions to the upstream in $asked.
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
        # Its progress cannot be turned off where it does several things at a time.
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

# row NAME JOBS FILE BYTES: of files whose bytes nobody reads there are no MB/s.
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
