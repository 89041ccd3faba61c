#!/usr/bin/env bash
# The mirror beside nginx, each with one worker on one core, and the client on another: redirects, index files from
# memory, "not modified", and stored crate files of 50 kB, 1 MB and 10 MB. wrk has 1 thread and 16 connections on
# loopback, in alternating rounds. Both servers log every request to /dev/null. Prints medians: the rate, its ratio to
# nginx in the same round, the processor time of the server per request and per GB, and how busy the client was. At 100
# % the client is the limit, and only the processor time tells servers apart. `discard-1000000` has another client,
# which discards the bytes in the kernel and is not the limit.
#
#   one_core.sh [ROUNDS [SECONDS [BUILD…]]]      5 rounds of 2 seconds; each BUILD is another binary of the mirror
#
# WORKS="redirect 304" measures only these. BENCH_FILES is a directory of index files as for sparse.sh. Needs two cores,
# nginx, wrk, git, python3, taskset (util-linux) and cargo.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

rounds=${1:-5}
seconds=${2:-2}
need nginx wrk git python3 taskset
read -ra works <<<"${WORKS:-redirect index 304 crate-50000 crate-1000000 crate-10000000 discard-1000000}"
build
servers=(nginx mirror)
declare -A builds=([mirror]=$mirror)
for other in "${@:3}"; do
    name=build-$((${#servers[@]} - 1))
    servers+=("$name")
    builds[$name]=$other
done
# shellcheck disable=SC2034  # start_nginx uses both
at_server=(taskset --cpu-list 0) nginx_worker_count=1

make_site
(cd "$temporary/www" && find index -mindepth 2 -type f -size -60k -printf '/%p\n') >"$temporary/index-paths"
head -n 1 "$temporary/index-paths" >"$temporary/304-paths"
site=$url
make_crates 100x50000 50x1000000 5x10000000
for size in 50000 1000000 10000000; do
    grep "^b$size-" "$temporary/names" >"$temporary/crate-$size-names"
done
echo /api/v1/crates/serde/1.0.0/download >"$temporary/redirect-paths"

declare -A ports=() processes=()
nginx_port=$(free_port) upstream_port=$(free_port)
start_nginx <<NGINX
    server { listen 127.0.0.1:$upstream_port; root $temporary/www; }
    server {
        listen 127.0.0.1:$nginx_port;
        root $temporary/www;
        access_log /dev/null combined buffer=64k;
        location /api/ { return 302 https://crates-io.s3.us-west-1.amazonaws.com/crates/serde/serde-1.0.0.crate; }
    }
NGINX
wait_for_port "$nginx_port"
for kind in index crates; do
    ports[nginx-$kind]=$nginx_port
    processes[nginx-$kind]=$(nginx_workers)
done

# begin SERVER index|crates REPOSITORY [NAME=VALUE…]
begin() {
    local key=$1-$2
    ports[$key]=$(free_port)
    run_in_background /dev/null "${at_server[@]}" env BIND_ADDRESS=127.0.0.1 PORT="${ports[$key]}" \
        DATA_DIR="$temporary/$key" GIT_REPO_URL="$3" REFRESH_INTERVAL_SECS=0 LOG_FORMAT=text RUST_LOG=info "${@:4}" \
        "${builds[$1]}"
    processes[$key]=$last
    port=${ports[$key]} process=$last mirror_log=/dev/null wait_until_ready
}
read -ra upstream < <(fetch_from "$upstream_port")
for server in "${servers[@]:1}"; do
    begin "$server" index "$site" A=b
    begin "$server" crates "$url" "${upstream[@]}"
    # Fetches all files.
    paths_at mirror <"$temporary/names" >"$temporary/paths"
    python3 "$compare/check_crates.py" "${ports[$server-crates]}" "$temporary/names" "$temporary/paths" "$temporary/www"
done

TIMEFORMAT='%R %U %S'
# measure WORK SERVER index|crates [OPTION…]: the options are wrk's
measure() {
    local process out=$temporary/$1-$2 before after
    read -r process <<<"${processes[$2-$3]}"
    cat >"$temporary/work.lua" <<LUA
local requests, at = {}, 0
function init() for line in io.lines("$temporary/$1-paths") do requests[#requests + 1] = wrk.format("GET", line) end end
function request() at = at % #requests + 1; return requests[at] end
function done(summary)
    local errors = summary.errors
    io.write(string.format("result %d %d %d %d\n", summary.duration, summary.requests, summary.bytes,
        errors.connect + errors.read + errors.write + errors.timeout))
end
LUA
    before=$(processor_time "$process")
    local client=(wrk -t1 -c16 -d"${seconds}s" --timeout 30s -s "$temporary/work.lua" "${@:4}"
        "http://127.0.0.1:${ports[$2-$3]}")
    [[ $1 != discard* ]] || client=(python3 "$compare/discarding_client.py" "${ports[$2-$3]}" "$temporary/$1-paths" "$seconds")
    { time taskset --cpu-list 1 "${client[@]}" >"$temporary/wrk"; } 2>"$temporary/time"
    after=$(processor_time "$process")
    read -r _ duration requests bytes bad < <(grep '^result' "$temporary/wrk")
    [ "$bad" = 0 ] || echo "$2: $bad errors" >&2
    awk -v us="$duration" -v requests="$requests" 'BEGIN { print requests * 1e6 / us }' >>"$out-rate"
    awk -v cpu="$before $after" -v n="$requests" -v bytes="$bytes" \
        'BEGIN { split(cpu, t, " "); t[3] = t[2] - t[1]; print t[3] / n * 1e6, t[3] / bytes * 1e12 }' >>"$out-cpu"
    awk '{ print 100 * ($2 + $3) / $1 }' "$temporary/time" >>"$out-client"
    paste <(tail -n 1 "$temporary/$1-nginx-rate") <(tail -n 1 "$out-rate") | awk '{ print $2 / $1 }' >>"$out-ratio"
}

for ((round = 1; round <= rounds; round++)); do
    for work in "${works[@]}"; do
        for server in "${servers[@]}"; do
            case $work in
                304)
                    tag=$(curl --silent --head "http://127.0.0.1:${ports[$server-index]}$(<"$temporary/304-paths")" |
                        tr -d '\r' | sed -n 's/^[Ee][Tt]ag: //p')
                    measure 304 "$server" index -H "If-None-Match: $tag"
                    ;;
                crate* | discard*)
                    paths_at "$server" <"$temporary/crate-${work#*-}-names" >"$temporary/$work-paths"
                    measure "$work" "$server" crates
                    ;;
                *) measure "$work" "$server" index ;;
            esac
        done
    done
    echo "round $round of $rounds" >&2
done

echo 'work            server        rate /s  x nginx (of rounds)  server us  server ms/GB  client %'
for work in "${works[@]}"; do
    for server in "${servers[@]}"; do
        out=$temporary/$work-$server
        printf '%-15s %-9s %11.0f  %7.2f (%4.2f-%4.2f) %10.2f %13.0f %9.0f\n' "$work" "$server" \
            "$(median <"$out-rate")" "$(median <"$out-ratio")" "$(sort -g "$out-ratio" | head -n 1)" \
            "$(sort -g "$out-ratio" | tail -n 1)" "$(cut -d' ' -f1 "$out-cpu" | median)" \
            "$(cut -d' ' -f2 "$out-cpu" | median)" "$(median <"$out-client")"
    done
done
