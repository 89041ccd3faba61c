#!/usr/bin/env bash
# Answers of the web API per second over HTTP, on loopback: wrk with 2 threads and 32 connections asks one question again
# and again, in rounds. Prints medians.
#
#   api.sh [CRATES [ROUNDS [SECONDS]]]      250000 crates, 3 rounds of 3 seconds for each question
#
# The index comes from BENCH_INDEX or MAKE_INDEX, or is a simple one: see first_snapshot.sh. MOST_USED is the crate that is
# asked for (serde). The client runs on the same processors. Needs wrk, git, python3 and cargo.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

crates=${1:-250000}
rounds=${2:-3}
seconds=${3:-3}
name=${MOST_USED:-serde}
need git python3 wrk

build
make_index "$crates"
serve_index
start_mirror 0
wait_until_ready
base=http://127.0.0.1:$port/api/v1
version=$(python3 - "$base" "$name" <<'WAIT'
import json, sys, time, urllib.error, urllib.request
base, name = sys.argv[1:]
deadline = time.monotonic() + 600
while True:
    try:
        urllib.request.urlopen(f"{base}/crates?q={name}").read()
        break
    except urllib.error.HTTPError as error:
        assert error.code == 503 and time.monotonic() < deadline, error
        time.sleep(0.2)
print(json.load(urllib.request.urlopen(f"{base}/crates/{name}"))["crate"]["max_version"])
WAIT
)
questions=(
    "crates/$name/$version" "crates/$name/$version/dependencies" "crates/$name" "crates/$name/versions"
    "crates/$name/reverse_dependencies" "crates?q=$name" "crates?q=$name&sort=recent-updates" summary
)
for question in "${questions[@]}"; do
    rm -f "$temporary/rates"
    for ((round = 1; round <= rounds; round++)); do
        wrk -t2 -c32 -d"${seconds}s" "$base/$question" |
            awk -v rates="$temporary/rates" '/^Requests\/sec/ { print $2 >> rates } /Non-2xx|Socket/ { print > "/dev/stderr" }'
    done
    printf '%-45s %8.0f /s\n' "$question" "$(median <"$temporary/rates")"
done
echo "RssAnon $(of_status "$process" RssAnon) kB"
