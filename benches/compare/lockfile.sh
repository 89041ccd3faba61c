#!/usr/bin/env bash
# How long `cargo generate-lockfile` takes through the mirror's sparse index, beside nginx with the same index files,
# over HTTP and over TLS with HTTP/2, on loopback and over a link with a round trip of 20 ms, in alternating rounds.
# First with an empty CARGO_HOME, then with the same one again, so that cargo only asks whether files have changed.
# Prints medians and ratios.
#
#   lockfile.sh [ROUNDS]      5 rounds
#
#   BENCH_PROBE=DIR   a package; without it, one that depends on a few crates of tests/fixtures, which is too small to measure
#   BENCH_FILES=DIR   a directory of index files in the layout of an index, in which the package's dependencies resolve;
#                     without it, tests/fixtures/index
#   ROUND_TRIP_MS=20  the round trip of the slow link
#
# Both sides answer below /index/ on this machine, and every Cargo.lock must be the same. nginx has its files in the
# page cache, open (`open_file_cache`) and compressed in advance with `gzip -9` (`gzip_static`).
#
# Server and client run in network namespaces, which need root. For other users only loopback is measured. The slow link
# is delay_link.py, and its measured round trip is printed. A mirror that was built without TLS is left out of that
# half.
#
# Needs nginx, openssl, git, python3 and cargo, and for the slow link iproute2 and /dev/net/tun.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

rounds=${1:-5}
round_trip_ms=${ROUND_TRIP_MS:-20}
need nginx openssl git gzip python3 cargo

build
make_site
printf '{"dl":"http://127.0.0.1/crates"}\n' >"$temporary/www/index/config.json"
# Shorter files fit into one packet without compression.
find "$temporary/www/index" -type f -size +511c -exec gzip -9 --keep {} +

probe=$temporary/probe
if [ -n "${BENCH_PROBE:-}" ]; then
    cp -r --no-preserve=mode "$BENCH_PROBE" "$probe"
    rm -rf "$probe/target" "$probe/Cargo.lock"
else
    mkdir -p "$probe/src"
    touch "$probe/src/lib.rs"
    printf '[package]\nname = "probe"\nedition = "2021"\n\n[dependencies]\n' >"$probe/Cargo.toml"
    printf '%s = "*"\n' adler2 cfg-if either fnv hex itoa ryu shlex >>"$probe/Cargo.toml"
fi

# The addresses of the server and the client.
links=(loopback)
listen=127.0.0.1
declare -A server_address=([loopback]=127.0.0.1)
if [ "$(id -u)" = 0 ] && [ -c /dev/net/tun ]; then
    need ip
    links+=(slow)
    # The namespaces are connected only to each other.
    listen=0.0.0.0
    server_address[slow]=10.0.0.1
    at_server=(ip netns exec "bench-server-$$")
    at_client=(ip netns exec "bench-client-$$")
    clean_up_more() {
        ip netns delete "bench-server-$$"
        ip netns delete "bench-client-$$"
    }
    ip netns add "bench-server-$$"
    ip netns add "bench-client-$$"
    run_in_background "$temporary/link" python3 "$compare/delay_link.py" "bench-server-$$" "bench-client-$$" \
        "$(awk -v both="$round_trip_ms" 'BEGIN { print both / 2 }')"
    deadline=$((SECONDS + 10))
    until grep --quiet --no-messages up "$temporary/link"; do
        [ $SECONDS -lt $deadline ] || { cat "$temporary/link" >&2; exit 1; }
        sleep 0.05
    done
else
    echo 'the slow link needs root and /dev/net/tun: only loopback is measured'
fi

# An authority, and a certificate of it for the addresses of the servers.
cat >"$temporary/openssl.cnf" <<'OPENSSL'
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[server]
subjectAltName = IP:127.0.0.1, IP:10.0.0.1
authorityKeyIdentifier = keyid
OPENSSL
authority=$temporary/authority.pem
certificate=$temporary/server.pem
key=$temporary/server.key
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj '/CN=bench authority' \
    -config "$temporary/openssl.cnf" -extensions authority -keyout "$temporary/authority.key" -out "$authority" 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=bench server' \
    -config "$temporary/openssl.cnf" -keyout "$key" -out "$temporary/server.csr" 2>/dev/null
openssl x509 -req -days 2 -in "$temporary/server.csr" -CA "$authority" -CAkey "$temporary/authority.key" -CAcreateserial \
    -extfile "$temporary/openssl.cnf" -extensions server -out "$certificate" 2>/dev/null

declare -A ports=([nginx-http]=$(free_port) [nginx-tls]=$(free_port))
# Versions without `http2 on` understand `listen … http2`, too.
start_nginx <<NGINX
    root $temporary/www;
    gzip_static on;
    server { listen $listen:${ports[nginx-http]}; }
    server {
        listen $listen:${ports[nginx-tls]} ssl http2;
        ssl_certificate $certificate;
        ssl_certificate_key $key;
        ssl_session_cache shared:sessions:10m;
    }
NGINX
wait_for_port "${ports[nginx-http]}"

# shellcheck disable=SC2034  # used by way of `declare -n`
sides_http=(nginx mirror)
sides_tls=(nginx)
start_mirror 0 BIND_ADDRESS=$listen DATA_DIR="$temporary/data-http"
wait_until_ready
ports[mirror-http]=$port
start_mirror 0 BIND_ADDRESS=$listen DATA_DIR="$temporary/data-tls" TLS_CERT="$certificate" TLS_KEY="$key"
if CA=$authority wait_until_ready; then
    sides_tls+=(mirror)
    ports[mirror-tls]=$port
else
    stop "$process"
fi

# The median time of a TCP connect from the client.
for link in "${links[@]}"; do
    [ "$link" = slow ] || at=("${at_server[@]}")
    [ "$link" = loopback ] || at=("${at_client[@]}")
    "${at[@]}" python3 - "$link" "${server_address[$link]}" "${ports[nginx-http]}" <<'CONNECT'
import socket, statistics, sys, time
times = []
for _ in range(11):
    began = time.perf_counter()
    socket.create_connection((sys.argv[2], int(sys.argv[3])), 10).close()
    times.append((time.perf_counter() - began) * 1000)
print(f"{sys.argv[1]}: a round trip takes {statistics.median(times):.2f} ms")
CONNECT
done

# The programs themselves, because rustup's proxies would look for toolchains in the new HOME.
cargo=$(rustup which cargo 2>/dev/null || command -v cargo)
rustc=$(rustup which rustc 2>/dev/null || command -v rustc)

fail_with_logs() {
    echo "cargo failed: $1. Of the servers, these run: $(jobs -rp | tr '\n' ' ')" >&2
    tail -n 20 "$temporary"/mirror-*.log "$temporary/nginx.err" >&2
    exit 1
}

# generate_lockfile SIDE SCHEME LINK: both runs, with a CARGO_HOME of their own.
generate_lockfile() {
    local side=$1 scheme=$2 link=$3 run at=("${at_client[@]}") home=$temporary/home times
    [ "$link" = slow ] || at=("${at_server[@]}")
    times=$temporary/times-$scheme-$link-$side
    rm -rf "$home"
    mkdir "$home"
    cat >"$home/config.toml" <<CARGO
[source.crates-io]
replace-with = "bench"
[source.bench]
registry = "sparse+${scheme/tls/https}://${server_address[$link]}:${ports[$side-$scheme]}/index/"
[http]
cainfo = "$authority"
[net]
retry = 0
CARGO
    for run in first again; do
        rm -f "$probe/Cargo.lock"
        began=$(now)
        (cd "$probe" && "${at[@]}" env -i PATH="$PATH" HOME="$home" CARGO_HOME="$home" RUSTC="$rustc" \
            "$cargo" generate-lockfile --quiet) || fail_with_logs "$side $scheme $link"
        since "$began" >>"$times-$run"
        [ -e "$temporary/Cargo.lock" ] || cp "$probe/Cargo.lock" "$temporary/Cargo.lock"
        cmp "$probe/Cargo.lock" "$temporary/Cargo.lock"
    done
    printf 'round %d  %-4s  %-8s  %-6s  %7.3f s, again %7.3f s\n' "$round" "$scheme" "$link" "$side" \
        "$(tail -n 1 "$times-first")" "$(tail -n 1 "$times-again")"
}

for ((round = 1; round <= rounds; round++)); do
    for link in "${links[@]}"; do
        for scheme in http tls; do
            declare -n sides=sides_$scheme
            # The second side could find warm caches.
            order=("${sides[@]}")
            if ((round % 2 == 0)); then mapfile -t order < <(printf '%s\n' "${sides[@]}" | tac); fi
            for side in "${order[@]}"; do generate_lockfile "$side" "$scheme" "$link"; done
        done
    done
done

echo
echo "cargo asked for $(find "$temporary/home/registry/index" -path '*/.cache/*' -type f | wc -l) files" \
    "and locked $(grep --count '^name = ' "$temporary/Cargo.lock") packages, the same in every run"
for link in "${links[@]}"; do
    for scheme in http tls; do
        for run in first again; do
            times=$temporary/times-$scheme-$link
            result=$(median <"$times-nginx-$run")
            printf 'median  %-4s  %-8s  %-5s  nginx %7.3f s' "$scheme" "$link" "$run" "$result"
            if [ -e "$times-mirror-$run" ]; then
                median <"$times-mirror-$run" |
                    awk -v nginx="$result" '{ printf ", the mirror %7.3f s, %.2f x nginx\n", $1, $1 / nginx }'
            else
                echo ', the mirror: not measured'
            fi
        done
    done
done
