#!/usr/bin/env bash
# Index files per second: the mirror's sparse index beside nginx, which serves the same files from disk with
# `open_file_cache`, on loopback, in alternating rounds of wrk with 2 threads and 32 connections. First every file in turn,
# then one file that the client has (304). Prints medians and ratios.
#
#   sparse.sh [ROUNDS] [SECONDS]      5 rounds of 3 seconds each
#
# BENCH_FILES is a directory of index files in the layout of an index; without it, tests/fixtures/index. Files over 60 kB
# are left out, since they measure only how fast bytes are copied. Needs nginx, wrk, git, python3 and cargo.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

rounds=${1:-5}
seconds=${2:-3}
files=$(cd "${BENCH_FILES:-$root/tests/fixtures/index}" && pwd)
need nginx wrk git python3

build
mkdir -p "$temporary/www"
cp -r "$files" "$temporary/www/index"
rm -rf "$temporary/www/index/.git"
(cd "$temporary/www" && find index -mindepth 2 -type f -size -60k) >"$temporary/files"
# The workers of an nginx that root has started run as somebody else.
chmod -R a+rX "$temporary"
git init --quiet --initial-branch=master "$temporary/work"
cp -r "$temporary/www/index/." "$temporary/work"
git -C "$temporary/work" add --all
git -C "$temporary/work" -c user.name=bench -c user.email=bench@example commit --quiet --message files

nginx_port=$(free_port)
cat >"$temporary/nginx.conf" <<NGINX
worker_processes 2;
daemon off;
pid $temporary/nginx.pid;
error_log $temporary/nginx.err;
events { worker_connections 1024; }
http {
    access_log off;
    keepalive_requests 1000000000;
    sendfile on;
    tcp_nopush on;
    open_file_cache max=100000 inactive=300s;
    open_file_cache_valid 300s;
    default_type text/plain;
    client_body_temp_path $temporary/body;
    proxy_temp_path $temporary/proxy;
    fastcgi_temp_path $temporary/fastcgi;
    uwsgi_temp_path $temporary/uwsgi;
    scgi_temp_path $temporary/scgi;
    server { listen 127.0.0.1:$nginx_port; root $temporary/www; }
}
NGINX
nginx -e "$temporary/nginx.err" -c "$temporary/nginx.conf" -p "$temporary" &
nginx=$!
started+=("$nginx")
trap 'kill -TERM "$nginx" 2>/dev/null || true; wait "$nginx" 2>/dev/null || true; clean_up' EXIT
url=$temporary/work
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
# wrk counts a 304 among "Non-2xx or 3xx"; what the files answer is checked once below instead.
rate() { awk '/^Requests\/sec/ { print $2 } /Socket errors/ { print > "/dev/stderr" }'; }

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
        wrk -t2 -c32 -d"${seconds}s" -s "$temporary/every.lua" "$base" | rate >>"$temporary/every-$server"
        wrk -t2 -c32 -d"${seconds}s" -H "If-None-Match: $(tag "${ports[$server]}")" "$base$one" | rate >>"$temporary/304-$server"
        printf 'round %d  %-7s every file %10.0f /s  304 %10.0f /s\n' "$round" "$server" \
            "$(tail -n 1 "$temporary/every-$server")" "$(tail -n 1 "$temporary/304-$server")"
    done
done

echo
for work in every 304; do
    printf '%-6s median: nginx %.0f /s, the mirror %.0f /s\n' "$work" "$(median <"$temporary/$work-nginx")" \
        "$(median <"$temporary/$work-mirror")"
done
echo "the mirror: RssAnon $(of_status "$process" RssAnon) kB"
