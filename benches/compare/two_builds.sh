#!/usr/bin/env bash
# Two builds of the mirror beside each other, in alternating rounds of wrk with 2 threads and 32 connections: redirects,
# index files from memory, "not modified", and stored crate files of 50 kB and 1 MB. Both log every request to /dev/null.
# Prints each one's median, the median of the ratios of the rounds (above 1: NEW is faster), and the processor time that the
# server took for a request, which says more than the rate where the machine has other things to do.
#
#   two_builds.sh OLD [NEW [ROUNDS [SECONDS]]]      NEW is this tree's release build; 7 rounds of 3 seconds each
#
# BENCH_FILES is a directory of index files as for sparse.sh. Needs nginx, wrk, git, python3 and cargo.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

declare -A builds=([old]=$1)
if [ -n "${2:-}" ]; then builds[new]=$2; else build; builds[new]=$mirror; fi
rounds=${3:-7}
seconds=${4:-3}
need nginx wrk git python3

make_site
(cd "$temporary/www" && find index -mindepth 2 -type f -size -60k -printf '/%p\n') >"$temporary/index-paths"
head -n 1 "$temporary/index-paths" >"$temporary/304-paths"
site=$url
make_crates 100x50000 20x1000000
for size in 50000 1000000; do
    grep "^b$size-" "$temporary/names" | paths_at mirror >"$temporary/crate-$size-paths"
done
echo /api/v1/crates/serde/1.0.0/download >"$temporary/redirect-paths"
upstream_port=$(free_port)
start_nginx <<<"server { listen 127.0.0.1:$upstream_port; root $temporary/www; }"
wait_for_port "$upstream_port"
read -ra upstream < <(fetch_from "$upstream_port")

declare -A ports=() processes=()
# begin BUILD NAME INDEX SETTINGS…
begin() {
    local key=$1-$2
    ports[$key]=$(free_port)
    run_in_background /dev/null env BIND_ADDRESS=127.0.0.1 PORT="${ports[$key]}" DATA_DIR="$temporary/$key" \
        GIT_REPO_URL="$3" REFRESH_INTERVAL_SECS=0 LOG_FORMAT=text RUST_LOG=info "${@:4}" "${builds[$1]}"
    processes[$key]=$last
    port=${ports[$key]} process=$last mirror_log=/dev/null wait_until_ready
}
for one in old new; do
    begin $one index "$site" A=b
    begin $one crates "$url" "${upstream[@]}"
    for size in 50000 1000000; do
        while read -r path; do
            curl --silent --fail --output /dev/null "http://127.0.0.1:${ports[$one-crates]}$path"
        done <"$temporary/crate-$size-paths"
    done
done

# measure WORK BUILD SERVER [HEADER…]
measure() {
    cat >"$temporary/work.lua" <<LUA
local requests, at = {}, 0
function init() for line in io.lines("$temporary/$1-paths") do requests[#requests + 1] = wrk.format("GET", line) end end
function request() at = at % #requests + 1; return requests[at] end
LUA
    local before
    before=$(processor_time "${processes[$2-$3]}")
    wrk -t2 -c32 -d"${seconds}s" -s "$temporary/work.lua" "${@:4}" "http://127.0.0.1:${ports[$2-$3]}" |
        awk '/requests in/ { print $1 > counted } /^Requests\/sec/ { print $2 } /Socket errors/ { print > "/dev/stderr" }' \
            counted="$temporary/counted" >>"$temporary/rate-$1-$2"
    awk -v before="$before" -v after="$(processor_time "${processes[$2-$3]}")" \
        '{ print (after - before) * 1e6 / $1 }' "$temporary/counted" >>"$temporary/cpu-$1-$2"
}
works=(redirect index 304 crate-50000 crate-1000000)
for ((round = 1; round <= rounds; round++)); do
    for work in "${works[@]}"; do
        for one in old new; do
            case $work in
                304)
                    tag=$(curl --silent --head "http://127.0.0.1:${ports[$one-index]}$(<"$temporary/304-paths")" |
                        tr -d '\r' | sed -n 's/^etag: //p')
                    measure 304 $one index -H "If-None-Match: $tag"
                    ;;
                crate*) measure "$work" $one crates ;;
                *) measure "$work" $one index ;;
            esac
        done
    done
done
for work in "${works[@]}"; do
    ratio=$(paste "$temporary/rate-$work-old" "$temporary/rate-$work-new" | awk '{ print $2 / $1 }' | median)
    printf '%-14s old %8.0f /s %7.2f us   new %8.0f /s %7.2f us   rate %.3f x\n' "$work" \
        "$(median <"$temporary/rate-$work-old")" "$(median <"$temporary/cpu-$work-old")" \
        "$(median <"$temporary/rate-$work-new")" "$(median <"$temporary/cpu-$work-new")" "$ratio"
done
