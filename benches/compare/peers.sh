#!/usr/bin/env bash
# The mirror beside other mirrors of crates.io, in one run: nginx with the same files on its disk, panamax, nora and
# crates-io-proxy. First index files and stored crate files per second with wrk (2 threads, 32 connections), in
# alternating rounds. Then the time of `cargo fetch --locked` of this project with an empty CARGO_HOME. Then anonymous
# memory. Writes the medians to docs/performance.md and docs/performance.svg, and the sentence that README quotes.
#
#   peers.sh [ROUNDS [SECONDS]]      5 rounds of 3 seconds
#
#   PEERS=DIR     where nora, panamax and crates-io-proxy are, if not on the PATH: `cargo install nora-registry panamax
#                 crates-io-proxy` installs them. A missing one is left out of the table
#   MIRROR=FILE   another release binary of the mirror than the one that this script builds
#   SITE=DIR      index/ and crates/NAME/NAME-VERSION.crate for the packages of Cargo.lock; without it they come from
#                 cargo's own cache, see peers_site.py
#   OUT=DIR       writes performance.md and performance.svg, and README.md, below this directory and not into the project
#
# Every server has every file before the measurement: the script requests all files and compares them. nora and
# crates-io-proxy fetch from a second mirror. All servers log as they do by default, to /dev/null. nginx writes an
# access log. Needs nginx, wrk, git, python3 (3.11) and cargo, and two idle cores.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

rounds=${1:-5}
seconds=${2:-3}
need nginx wrk git python3 cargo
if [ -n "${MIRROR:-}" ]; then mirror=$MIRROR; else build; fi
PATH=${PEERS:+$PEERS:}$PATH

# Only the packages of this platform, because cargo's cache has no others.
platform=$(rustc -vV | sed -n 's/^host: //p')
if [ -n "${SITE:-}" ]; then
    site=$(cd "$SITE" && pwd)
else
    site=$temporary/site
    (cd "$root" && cargo fetch --quiet --locked --target "$platform")
    python3 "$compare/peers_site.py" "$root/Cargo.lock" "$site" >/dev/null
fi
BENCH_FILES=$site/index make_site
ln -s "$site/crates" "$temporary/www/crates"
chmod -R a+rX "$site"

# Larger files only measure how fast bytes are copied. The servers treat a + in a URL differently.
(cd "$site/index" && find . -mindepth 2 -type f -size -60k -printf '%P\n') | sort >"$temporary/index-files"
(cd "$site/crates" && find . -type f ! -name '*+*' -size -256k -printf '%s %f\n') | sort -k 2 >"$temporary/crate-files"
size=$(awk '{ sum += $1 } END { printf "%.0f", sum / NR / 1000 }' "$temporary/crate-files")
echo "$(wc -l <"$temporary/index-files") index files, $(wc -l <"$temporary/crate-files") crate files of $size kB on average"

declare -A ports=() processes=() index_at=() crate_at=()
# The paths of index files and crate files at each server: {path}, or {name}, {version} and {prefix}.
index_at=([nginx]=/index/{path} [mirror]=/index/{path} [panamax]=/index/{path} [nora]=/cargo/index/{path} [crates-io-proxy]=/index/{path})
download=/api/v1/crates/{name}/{version}/download
crate_at=(
    [nginx]=/crates/{name}/{name}-{version}.crate
    [mirror]=$download
    [panamax]=/crates/{prefix}/{name}/{version}/{name}-{version}.crate
    [nora]=/cargo$download
    [crates-io-proxy]=$download
)

ports[nginx]=$(free_port)
start_nginx <<NGINX
    server {
        listen 127.0.0.1:${ports[nginx]};
        root $temporary/www;
        access_log /dev/null combined buffer=64k;
    }
NGINX
wait_for_port "${ports[nginx]}"
nginx_url=http://127.0.0.1:${ports[nginx]}
printf '{"dl":"%s"}\n' "$nginx_url/crates/{crate}/{crate}-{version}.crate" >"$temporary/www/index/config.json"
# The namespace has only the processes that serve.
processes[nginx]=$(nginx_workers)

# begin NAME: a mirror in the mode `cache`, with the default logs. Its crate files come from nginx.
begin() {
    ports[$1]=$(free_port)
    run_in_background /dev/null env BIND_ADDRESS=127.0.0.1 PORT="${ports[$1]}" DATA_DIR="$temporary/data-$1" \
        GIT_REPO_URL="$url" REFRESH_INTERVAL_SECS=0 DOWNLOAD_MODE=cache \
        "DOWNLOAD_URL=$nginx_url/crates/{crate}/{crate}-{version}.crate" "$mirror"
    processes[$1]=$last
    port=${ports[$1]} process=$last mirror_log=/dev/null wait_until_ready
}
begin mirror
begin upstream
upstream_url=http://127.0.0.1:${ports[upstream]}
servers=(nginx mirror)

# begin_peer NAME COMMAND…: an installed peer. Its port is in ${ports[NAME]}.
begin_peer() {
    local name=$1
    shift
    if ! command -v "${name/#nora*/nora}" >/dev/null; then
        echo "$name is not installed: left out" >&2
        return
    fi
    (cd "$temporary" && exec "$@") >/dev/null 2>"$temporary/$name.log" &
    processes[$name]=$!
    started+=($!)
    wait_for_port "${ports[$name]}" || { cat "$temporary/$name.log" >&2; exit 1; }
    servers+=("$name")
}

ports[panamax]=$(free_port)
if command -v panamax >/dev/null; then
    panamax init "$temporary/panamax" >/dev/null 2>&1
    rm -rf "$temporary/panamax/crates.io-index"
    cp -r "$url" "$temporary/panamax/crates.io-index"
    printf '{"dl":"http://127.0.0.1:%s/crates/{prefix}/{crate}/{version}/{crate}-{version}.crate"}\n' "${ports[panamax]}" \
        >"$temporary/panamax/crates.io-index/config.json"
    python3 - "$site/crates" "$temporary/panamax/crates" <<'COPY'
import os, shutil, sys
source, target = sys.argv[1:]
for name in os.listdir(source):
    lower = name.lower()
    prefix = f"{len(lower)}" if len(lower) < 3 else f"3/{lower[0]}" if len(lower) == 3 else f"{lower[:2]}/{lower[2:4]}"
    for file in os.listdir(f"{source}/{name}"):
        version = file[len(name) + 1:-len(".crate")]
        os.makedirs(f"{target}/{prefix}/{name}/{version}", exist_ok=True)
        shutil.copy(f"{source}/{name}/{file}", f"{target}/{prefix}/{name}/{version}")
COPY
fi
begin_peer panamax panamax serve "$temporary/panamax" --listen 127.0.0.1 --port "${ports[panamax]}"
ports[nora]=$(free_port)
mkdir "$temporary/nora"
begin_peer nora env NORA_HOST=127.0.0.1 NORA_PORT="${ports[nora]}" NORA_PUBLIC_URL="http://127.0.0.1:${ports[nora]}" \
    NORA_CARGO_PROXY="$upstream_url" NORA_STORAGE_PATH="$temporary/nora" NORA_RATE_LIMIT_ENABLED=false \
    NORA_CARGO_METADATA_TTL=3600 nora
ports[crates-io-proxy]=$(free_port)
begin_peer crates-io-proxy crates-io-proxy --listen "127.0.0.1:${ports[crates-io-proxy]}" --upstream-url "$upstream_url/" \
    --index-url "$upstream_url/index/" --proxy-url "http://127.0.0.1:${ports[crates-io-proxy]}/" \
    --cache-dir "$temporary/crates-io-proxy"

# Requests everything once from each server, so that it has all files. Writes its paths into files.
for server in "${servers[@]}"; do
    python3 - "${ports[$server]}" "${index_at[$server]}" "${crate_at[$server]}" "$site" "$temporary" "$server" <<'CHECK'
import http.client, os, sys
port, index_at, crate_at, site, temporary, server = sys.argv[1:]
connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=60)

def check(path, file):
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    with open(file, "rb") as expected:
        if answer.status != 200 or body != expected.read():
            sys.exit(f"{server}: {path}: {answer.status}, {len(body)} bytes: {body[:200]}")

with open(f"{temporary}/index-{server}", "w") as paths:
    for path in open(f"{temporary}/index-files").read().split():
        url = index_at.format(path=path)
        check(url, f"{site}/index/{path}")
        print(url, file=paths)
with open(f"{temporary}/crate-{server}", "w") as paths:
    for line in open(f"{temporary}/crate-files"):
        file = line.split()[1]
        name = next(n for n in (file[:i] for i, c in enumerate(file) if c == "-") if os.path.exists(f"{site}/crates/{n}/{file}"))
        version, lower = file[len(name) + 1:-len(".crate")], name.lower()
        prefix = f"{len(lower)}" if len(lower) < 3 else f"3/{lower[0]}" if len(lower) == 3 else f"{lower[:2]}/{lower[2:4]}"
        url = crate_at.format(name=name, version=version, prefix=prefix)
        check(url, f"{site}/crates/{name}/{file}")
        print(url, file=paths)
CHECK
done

# rate WORK SERVER: appends the requests per second to a file.
rate() {
    cat >"$temporary/work.lua" <<LUA
local requests, at = {}, 0
function init() for line in io.lines("$temporary/$1-$2") do requests[#requests + 1] = wrk.format("GET", line) end end
function request() at = at % #requests + 1; return requests[at] end
function done(summary)
    local errors = summary.errors
    io.write(string.format("result %f %d\n", summary.requests * 1e6 / summary.duration,
        errors.connect + errors.read + errors.write + errors.timeout + errors.status))
end
LUA
    local per_second bad
    read -r _ per_second bad < <(wrk -t2 -c32 -d"${seconds}s" --timeout 30s -s "$temporary/work.lua" \
        "http://127.0.0.1:${ports[$2]}" | grep '^result')
    [ "$bad" = 0 ] || echo "$2: $bad errors" >&2
    echo "$per_second" >>"$temporary/$1-rates-$2"
}

# In memory if possible: cargo unpacks each crate, and a busy disk would take longer than any of the servers.
home=$(mktemp -d -p /dev/shm 2>/dev/null || mktemp -d)
clean_up_more() { rm -rf "$home"; }

# fetch SERVER: appends the seconds of cargo with an empty CARGO_HOME to a file.
fetch() {
    local began
    rm -rf "$home"
    mkdir "$home"
    cat >"$home/config.toml" <<CARGO
[source.crates-io]
replace-with = "bench"
[source.bench]
registry = "sparse+http://127.0.0.1:${ports[$1]}${index_at[$1]%\{path\}}"
CARGO
    began=$(now)
    (cd "$temporary" && CARGO_HOME=$home cargo fetch --quiet --locked --target "$platform" --manifest-path "$root/Cargo.toml")
    since "$began" >>"$temporary/fetch-times-$1"
}

for ((round = 1; round <= rounds; round++)); do
    for server in "${servers[@]}"; do
        rate index "$server"
        rate crate "$server"
        fetch "$server"
    done
    echo "round $round of $rounds" >&2
done

out=${OUT:-$root}
if [ -n "${OUT:-}" ]; then
    mkdir -p "$out/docs"
    cp "$root/README.md" "$out/"
    cp "$root/docs/performance.md" "$out/docs/"
fi
for server in "${servers[@]}"; do
    memory=0
    for process in ${processes[$server]}; do memory=$((memory + $(of_status "$process" RssAnon))); done
    echo "$server $(median <"$temporary/index-rates-$server") $(median <"$temporary/crate-rates-$server")" \
        "$(median <"$temporary/fetch-times-$server") $memory"
done | python3 "$compare/peers_chart.py" "$out" "$size" "$(awk '/^processor/ { n++ } END { print n }' /proc/cpuinfo)" "$(date +'%B %Y')"
