#!/usr/bin/env bash
# Crate files per second from a mirror that has stored them (DOWNLOAD_MODE=cache), beside nginx, which serves the same
# files from disk with sendfile and `open_file_cache`. Files have 50 kB, 1 MB and 10 MB. wrk has 1 thread and 16
# connections on loopback, and requests all files of a size in turn, in alternating rounds. Both servers log every
# request to /dev/null, and then none. Prints medians. The ratio is the median of the ratios of the rounds, to nginx
# without a log.
#
#   crates.sh [SECONDS] [ROUNDS]      5 rounds of 3 seconds each: 3 minutes in all
#
# The mirrors first fetch every file from that nginx once. Then all bytes are in the page cache. The table also has the
# processor time of the server per request, the kernel's included, and how busy wrk was. wrk copies everything that it
# receives. At 100 % the rate is that of wrk, and only the processor time tells servers apart.
#
# Needs nginx, wrk, git, python3 and cargo.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

seconds=${1:-3}
rounds=${2:-5}
need nginx wrk git python3
sizes=(50000 1000000 10000000)
servers=(nginx nginx-log mirror mirror-log)

build
make_crates 100x50000 50x1000000 5x10000000
upstream_port=$(free_port)
declare -A ports=([nginx]=$(free_port) [nginx-log]=$(free_port)) processes=()
start_nginx <<NGINX
    server { listen 127.0.0.1:$upstream_port; root $temporary/www; access_log $temporary/upstream.log combined; }
    server { listen 127.0.0.1:${ports[nginx]}; root $temporary/www; }
    server { listen 127.0.0.1:${ports[nginx-log]}; root $temporary/www; access_log /dev/null combined buffer=64k; }
NGINX
wait_for_port "${ports[nginx]}"
read -ra upstream < <(fetch_from "$upstream_port")
for server in mirror mirror-log; do
    filter=off
    [ $server = mirror ] || filter=info
    ports[$server]=$(free_port)
    run_in_background /dev/null env BIND_ADDRESS=127.0.0.1 PORT="${ports[$server]}" DATA_DIR="$temporary/$server" \
        GIT_REPO_URL="$url" REFRESH_INTERVAL_SECS=0 LOG_FORMAT=text RUST_LOG=$filter "${upstream[@]}" "$mirror"
    processes[$server]=$last
    port=${ports[$server]} process=$last mirror_log=/dev/null wait_until_ready
done
for server in nginx nginx-log; do processes[$server]=$(nginx_workers); done

for server in "${servers[@]}"; do
    paths_at "$server" <"$temporary/names" >"$temporary/paths"
    python3 "$compare/check_crates.py" "${ports[$server]}" "$temporary/names" "$temporary/paths" "$temporary/www"
    for size in "${sizes[@]}"; do
        grep "^b$size-" "$temporary/names" | paths_at "$server" >"$temporary/paths-$server-$size"
        # The requests are made once, so that wrk has little work besides reading.
        cat >"$temporary/$server-$size.lua" <<LUA
local requests, at = {}, 0
function init()
    for line in io.lines("$temporary/paths-$server-$size") do requests[#requests + 1] = wrk.format("GET", line) end
end
function request()
    at = at % #requests + 1
    return requests[at]
end
function done(summary)
    local seconds, errors = summary.duration / 1e6, summary.errors
    local bad = errors.connect + errors.read + errors.write + errors.status + errors.timeout
    io.write(string.format("result %.2f %.2f %d %d\n", summary.requests / seconds, summary.bytes / seconds / 1e6,
        summary.requests, bad))
end
LUA
    done
done
asked=$(times_asked)
[ "$asked" = $((2 * $(wc -l <"$temporary/names"))) ] ||
    { echo "the mirrors have asked $asked times for $(wc -l <"$temporary/names") files" >&2; exit 1; }

TIMEFORMAT='%R %U %S'
for ((round = 1; round <= rounds; round++)); do
    for size in "${sizes[@]}"; do
        for server in "${servers[@]}"; do
            result=$temporary/$server-$size
            # shellcheck disable=SC2086  # nginx has several processes
            before=$(processor_time ${processes[$server]})
            { time wrk -t1 -c16 -d"${seconds}s" --timeout 30s -s "$result.lua" "http://127.0.0.1:${ports[$server]}" \
                >"$temporary/wrk"; } 2>"$temporary/time"
            # shellcheck disable=SC2086
            after=$(processor_time ${processes[$server]})
            read -r _ rate speed requests bad < <(grep '^result' "$temporary/wrk")
            [ "$bad" = 0 ] || echo "$server: $bad errors" >&2
            echo "$rate" >>"$result-rate"
            echo "$speed" >>"$result-speed"
            awk -v before="$before" -v after="$after" -v requests="$requests" \
                'BEGIN { print (after - before) / requests * 1e6 }' >>"$result-cost"
            awk '{ print 100 * ($2 + $3) / $1 }' "$temporary/time" >>"$result-client"
            awk -v rate="$rate" -v base="$(tail -n 1 "$temporary/nginx-$size-rate")" 'BEGIN { print rate / base }' \
                >>"$result-ratio"
        done
    done
    echo "round $round of $rounds" >&2
done

echo '   bytes  server         files/s      MB/s  x nginx (of rounds)   server us/file  client %'
for size in "${sizes[@]}"; do
    for server in "${servers[@]}"; do
        result=$temporary/$server-$size
        printf '%8d  %-10s %11.0f %9.0f  %7.2f (%4.2f-%4.2f) %15.0f %9.0f\n' "$size" "$server" \
            "$(median <"$result-rate")" "$(median <"$result-speed")" "$(median <"$result-ratio")" \
            "$(sort -g "$result-ratio" | head -n 1)" "$(sort -g "$result-ratio" | tail -n 1)" \
            "$(median <"$result-cost")" "$(median <"$result-client")"
    done
done
for server in mirror mirror-log; do
    echo "$server: RssAnon $(of_status "${processes[$server]}" RssAnon) kB, VmHWM $(of_status "${processes[$server]}" VmHWM) kB"
done
