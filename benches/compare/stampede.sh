#!/usr/bin/env bash
# Many clients that request missing crates at the same time. Each crate must be fetched once, however many clients wait
# for it. 200 clients request 100 crates each. First all request the same crate, then all the next one. Then they start
# with another empty store, in random order. Prints the number of requests to the upstream, and times and latencies,
# beside the same downloads of stored crates and from nginx. Prints medians, and fails if a crate is fetched twice.
#
#   stampede.sh [CLIENTS] [CRATES] [BYTES] [ROUNDS]      200 clients, 100 crates of 50000 bytes, 5 rounds
#
# The client is benches/each_once.rs. Needs nginx, git, python3 and cargo.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

clients=${1:-200}
crates=${2:-100}
bytes=${3:-50000}
rounds=${4:-5}
need nginx git python3

build
each_once=$(build_bench each_once)
make_crates "${crates}x$bytes"
upstream_port=$(free_port)
nginx_port=$(free_port)
start_nginx <<NGINX
    server { listen 127.0.0.1:$upstream_port; root $temporary/www; access_log $temporary/upstream.log combined; }
    server { listen 127.0.0.1:$nginx_port; root $temporary/www; }
NGINX
wait_for_port "$nginx_port"
read -ra upstream < <(fetch_from "$upstream_port")

# Each name as often as there are clients, in order or mixed. The seed is fixed, so two runs have the same order.
python3 - "$temporary/names" "$clients" "$temporary" <<'ORDERS'
import random, sys
names = open(sys.argv[1]).read().split()
asked = [name for name in names for _ in range(int(sys.argv[2]))]
for order in "together", "mixed":
    with open(f"{sys.argv[3]}/{order}", "w") as file:
        file.writelines(name + "\n" for name in asked)
    random.Random(5).shuffle(asked)
ORDERS
for order in together mixed; do
    for server in nginx mirror; do paths_at $server <"$temporary/$order" >"$temporary/$order-$server"; done
done

# ask SERVER PORT ORDER PART: writes the client's report and the number of fetches to the file of the part.
ask() {
    local before bytes_seen report
    before=$(times_asked)
    report=$("$each_once" "$2" "$clients" "$temporary/$3-$1") || { cat "$mirror_log" >&2; exit 1; }
    bytes_seen=${report##* }
    [ "$bytes_seen" = $((clients * crates * bytes)) ] || { echo "$1 sent $bytes_seen bytes" >&2; exit 1; }
    fetched=$(($(times_asked) - before))
    echo "$report $fetched" >>"$temporary/report-$4-$3"
}
for ((round = 1; round <= rounds; round++)); do
    for order in together mixed; do
        # The clone stays. The store is a new one.
        start_mirror 0 "${upstream[@]}" STORAGE_URL="$temporary/store-$round-$order"
        wait_until_ready
        ask nginx "$nginx_port" $order nginx
        ask mirror "$port" $order miss
        [ "$fetched" = "$crates" ] || { echo "$fetched fetches for $crates crates" >&2; exit 1; }
        ask mirror "$port" $order held
        [ "$fetched" = 0 ] || { echo "$fetched fetches for crates that are held" >&2; exit 1; }
        paths_at mirror <"$temporary/names" >"$temporary/paths"
        python3 "$compare/check_crates.py" "$port" "$temporary/names" "$temporary/paths" "$temporary/www"
        stop "$process"
        rm -rf "$temporary/store-$round-$order"
    done
done

echo "$clients clients ask for $crates crates of $bytes bytes each"
for order in together mixed; do
    for part in nginx miss held; do
        # column NUMBER
        column() { awk -v column="$1" '{ print $column }' "$temporary/report-$part-$order" | median; }
        awk -v order=$order -v part=$part -v rate="$(column 1)" -v p50="$(column 2)" -v p99="$(column 3)" -v max="$(column 4)" \
            -v fetched="$(column 6)" -v asked=$((clients * crates)) 'BEGIN {
                if (part != "nginx") part = "mirror, " part
                printf "%-9s %-13s %7.3f s %8.0f files/s  p50 %7.2f ms  p99 %7.2f ms  max %7.2f ms  fetches %d\n",
                    order, part, asked / rate, rate, p50, p99, max, fetched }'
    done
done
