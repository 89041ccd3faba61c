#!/usr/bin/env bash
# Redirects per second: the mirror beside nginx's `return 302` and a bare axum handler, on loopback, in alternating
# rounds of wrk with 2 threads and 32 connections. Prints the median of each, and its ratio to nginx without a log.
#
#   redirect.sh [ROUNDS] [SECONDS]      5 rounds of 5 seconds each
#
# Needs nginx, wrk, python3 and cargo. The mirror logs every request by default. So both the mirror and nginx run with a
# log and without one.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

rounds=${1:-5}
seconds=${2:-5}
need nginx wrk python3

build
bare_axum=$(build_bench bare_axum)

location=https://crates-io.s3.us-west-1.amazonaws.com/crates/serde/serde-1.0.0.crate
path=/api/v1/crates/serde/1.0.0/download
declare -A port=()
servers=(nginx nginx-log bare-axum mirror-log mirror-warn)
for server in "${servers[@]}"; do port[$server]=$(free_port); done

# The mirrors follow an index that does not exist, because a redirect needs none. They must not wake up to try again.
git init --quiet --bare --initial-branch=master "$temporary/index.git"
git -C "$temporary/index.git" -c user.name=bench -c user.email=bench@example update-ref refs/heads/master \
    "$(git -C "$temporary/index.git" -c user.name=bench -c user.email=bench@example commit-tree -m empty \
        "$(git -C "$temporary/index.git" mktree </dev/null)")"
start_mirror() {
    run_in_background /dev/null env BIND_ADDRESS=127.0.0.1 PORT="${port[$1]}" DATA_DIR="$temporary/$1" \
        GIT_REPO_URL="$temporary/index.git" REFRESH_INTERVAL_SECS=0 DOWNLOAD_URL= LOG_FORMAT=text RUST_LOG="$2" "$mirror"
}

start_nginx <<NGINX
    server { listen 127.0.0.1:${port[nginx]}; location / { return 302 $location; } }
    server {
        listen 127.0.0.1:${port[nginx-log]};
        access_log $temporary/access.log combined buffer=64k;
        location / { return 302 $location; }
    }
NGINX
run_in_background /dev/null "$bare_axum" "${port[bare-axum]}"
start_mirror mirror-log info
start_mirror mirror-warn warn

for server in "${servers[@]}"; do
    wait_for_port "${port[$server]}"
    python3 - "${port[$server]}" "$path" "$location" <<'CHECK'
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
connection.request("GET", sys.argv[2])
answer = connection.getresponse()
assert (answer.status, answer.getheader("location")) == (302, sys.argv[3]), (answer.status, answer.getheaders())
CHECK
done

for ((round = 1; round <= rounds; round++)); do
    for server in "${servers[@]}"; do
        rate=$(wrk -t2 -c32 -d"${seconds}s" "http://127.0.0.1:${port[$server]}$path" |
            awk '/^Requests\/sec/ { print $2 } /Socket errors|Non-2xx or 3xx/ { print > "/dev/stderr" }')
        echo "$rate" >>"$temporary/rates-$server"
        printf 'round %d  %-12s %10.0f /s\n' "$round" "$server" "$rate"
    done
done

echo
base=$(median <"$temporary/rates-nginx")
for server in "${servers[@]}"; do
    median <"$temporary/rates-$server" |
        awk -v server="$server" -v base="$base" '{ printf "%-12s median %10.0f /s  %.2f x nginx\n", server, $1, $1 / base }'
done
