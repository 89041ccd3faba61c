#!/usr/bin/env bash
# How fast `crates-io-mirror verify` hashes a store, beside `sha256sum` and, if it is installed, `openssl dgst`, which
# read the same files with one process per processor. openssl uses the processor's instructions for SHA-256. sha256sum
# uses them only if it was built with openssl. Everything is in the page cache. Prints medians.
#
#   verify.sh [COUNT] [BYTES]      5000 files of 50000 bytes; ROUNDS=5
#
# Needs nginx, git, python3 and cargo, and space for two copies of the files in TMPDIR.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

count=${1:-5000}
bytes=${2:-50000}
rounds=${ROUNDS:-5}
need nginx git python3 sha256sum

build
make_crates "${count}x$bytes"
nginx_port=$(free_port)
start_nginx <<<"server { listen 127.0.0.1:$nginx_port; root $temporary/www; }"
wait_for_port "$nginx_port"
read -ra upstream < <(fetch_from "$nginx_port")
settings=(env DATA_DIR="$temporary/data" STORAGE_URL="$temporary/store" GIT_REPO_URL="$url" "${upstream[@]}")
"${settings[@]}" "$mirror" prefetch --all --jobs 16 >"$temporary/said" 2>&1 || { cat "$temporary/said" >&2; exit 1; }

verify() { "${settings[@]}" "$mirror" verify; }
by_sha256sum() { find "$temporary/store" -name '*.crate' -print0 | xargs -0 -n 64 -P "$(nproc)" sha256sum >"$temporary/sums"; }
by_openssl() {
    find "$temporary/store" -name '*.crate' -print0 | xargs -0 -n 64 -P "$(nproc)" openssl dgst -sha256 >"$temporary/sums"
}
tools=(verify by_sha256sum)
if command -v openssl >/dev/null; then tools+=(by_openssl); fi

# The first pass loads the page cache, and shows that each program sees all files.
for tool in "${tools[@]}"; do
    $tool >"$temporary/said" 2>&1 || { cat "$temporary/said" >&2; exit 1; }
    if [ "$tool" = verify ]; then
        # With a comma after three digits.
        seen=$(sed -n 's/ files: 0 damaged, 0 .*//p' "$temporary/said" | tr -d ,)
    else
        seen=$(wc -l <"$temporary/sums")
    fi
    [ "$seen" = "$count" ] || { echo "$tool sees ${seen:-no} files, not $count" >&2; exit 1; }
done
for ((round = 1; round <= rounds; round++)); do
    for tool in "${tools[@]}"; do
        began=$(now)
        $tool >"$temporary/said" 2>&1
        since "$began" >>"$temporary/$tool"
    done
done

echo "$count files of $bytes bytes on $(nproc) processors"
for tool in "${tools[@]}"; do
    median <"$temporary/$tool" | awk -v name="${tool#by_}" -v count="$count" -v bytes="$bytes" \
        '{ printf "%-10s %8.3f s %9.0f files/s %8.0f MB/s\n", name, $1, count / $1, count * bytes / $1 / 1e6 }'
done
