#!/usr/bin/env bash
# Index files per second: the mirror's sparse index beside nginx, which serves the same files from disk with
# `open_file_cache`, on loopback, in alternating rounds of wrk with 2 threads and 32 connections. First every file in
# turn, then one file that the client already has (304). Prints medians and ratios.
#
#   sparse.sh [ROUNDS] [SECONDS]      5 rounds of 3 seconds each
#
# BENCH_FILES is a directory of index files in the layout of an index. Without it, tests/fixtures/index counts. Files
# over 60 kB are left out, because they only measure how fast bytes are copied. Needs nginx, wrk, git, python3 and
# cargo.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

rounds=${1:-5}
seconds=${2:-3}
need nginx wrk git python3

build
make_site
(cd "$temporary/www" && find index -mindepth 2 -type f -size -60k) >"$temporary/files"
nginx_port=$(free_port)
start_nginx <<<"server { listen 127.0.0.1:$nginx_port; root $temporary/www; }"
start_mirror 0
wait_until_ready
wait_for_port "$nginx_port"

cat >"$temporary/every.lua" <<LUA
local paths = {}
for line in io.lines("$temporary/files") do paths[#paths + 1] = "/" .. line end
local at = 0
request = function()
    at = at % #paths + 1
    return wrk.format("GET", paths[at])
end
LUA
one=/$(head -n 1 "$temporary/files")

# tag PORT: the entity tag of the one file.
tag() {
    python3 -c '
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
connection.request("GET", sys.argv[2])
print(connection.getresponse().getheader("etag"))' "$1" "$one"
}
# rate FILE: the rate that wrk found. wrk counts a 304 among "Non-2xx or 3xx", so that line matters only for whole
# files. The answers themselves are checked once, below.
rate() {
    awk -v file="$1" '/^Requests\/sec/ { print $2 >> file } /Socket errors/ { print > "/dev/stderr" }
        /Non-2xx/ && file ~ /every/ { print > "/dev/stderr" }'
}

declare -A ports=([nginx]=$nginx_port [mirror]=$port)
for server in nginx mirror; do
    python3 - "${ports[$server]}" "$temporary/files" "$temporary/www" <<'CHECK'
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
for path in open(sys.argv[2]).read().split():
    connection.request("GET", "/" + path)
    answer = connection.getresponse()
    assert answer.status == 200 and answer.read() == open(f"{sys.argv[3]}/{path}", "rb").read(), path
connection.request("GET", "/" + path, headers={"If-None-Match": answer.getheader("etag")})
assert connection.getresponse().status == 304
CHECK
done
echo "$(wc -l <"$temporary/files") files; the mirror is process $process"
for ((round = 1; round <= rounds; round++)); do
    for server in nginx mirror; do
        base=http://127.0.0.1:${ports[$server]}
        wrk -t2 -c32 -d"${seconds}s" -s "$temporary/every.lua" "$base" | rate "$temporary/every-$server"
        wrk -t2 -c32 -d"${seconds}s" -H "If-None-Match: $(tag "${ports[$server]}")" "$base$one" |
            rate "$temporary/304-$server"
        printf 'round %d  %-7s every file %10.0f /s  304 %10.0f /s\n' "$round" "$server" \
            "$(tail -n 1 "$temporary/every-$server")" "$(tail -n 1 "$temporary/304-$server")"
    done
done

echo
for work in every 304; do
    awk -v work="$work" -v nginx="$(median <"$temporary/$work-nginx")" -v mirror="$(median <"$temporary/$work-mirror")" \
        'BEGIN { printf "%-6s median: nginx %.0f /s, the mirror %.0f /s, %.2f x nginx\n", work, nginx, mirror, mirror / nginx }'
done
echo "the mirror: RssAnon $(of_status "$process" RssAnon) kB"
