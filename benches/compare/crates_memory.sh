#!/usr/bin/env bash
# What a large file costs in memory. Many clients download the same crate of 200 MB at once from a mirror with
# DOWNLOAD_MODE=cache. First the file is missing, and all clients wait for one fetch. Then it is stored. Every tenth
# client is slow and takes 40 seconds. Prints the memory of the mirror, the number of requests to its upstream, and how
# long clients waited. Fails if a client does not get the right bytes.
#
#   crates_memory.sh [CLIENTS] [BYTES]      100 clients, 200000000 bytes
#
# RssAnon is the largest of samples every 20 ms. VmHWM is the kernel's own mark, which is reset before each part and
# includes mapped files. Neither includes the kernel's socket buffers.
#
# A client waits 25 seconds for a file, and then gets 503. Like cargo, it tries again.
#
# Needs nginx, git, python3 and cargo, and space for two copies of the file in TMPDIR.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

clients=${1:-100}
bytes=${2:-200000000}
slow=$((clients / 10))
slow_seconds=40
need nginx git python3

build
make_crates "1x$bytes"
name=$(<"$temporary/names")
path=$(paths_at mirror <<<"$name")
checksum=$(sha256sum <"$temporary/www/crates/$name/$name-1.0.0.crate" | cut -d ' ' -f 1)
nginx_port=$(free_port)
start_nginx <<<"server { listen 127.0.0.1:$nginx_port; root $temporary/www; access_log $temporary/upstream.log combined; }"
wait_for_port "$nginx_port"
read -ra upstream < <(fetch_from "$nginx_port")
start_mirror 0 "${upstream[@]}"
wait_until_ready

# memory PART: prints a row with the current memory.
memory() {
    printf '%-28s RssAnon %6d kB            VmHWM %6d kB\n' "$1" "$(of_status "$process" RssAnon)" \
        "$(of_status "$process" VmHWM)"
}

echo "$clients clients, $slow of them slow, a file of $bytes bytes"
memory 'before'
for part in miss held; do
    asked=$(times_asked)
    echo 5 >"/proc/$process/clear_refs"
    watch_memory "$process" "$temporary/peak-$part"
    watcher=$last
    python3 "$compare/many_downloads.py" "$port" "$path" "$clients" "$slow" $((bytes / slow_seconds)) "$checksum" \
        >"$temporary/report" || { cat "$temporary/report" "$mirror_log" >&2; exit 1; }
    stop "$watcher"
    read -r right refused first fast last_one <"$temporary/report"
    printf '%-28s RssAnon %6d kB at its peak VmHWM %6d kB\n' "during: $part" "$(<"$temporary/peak-$part")" \
        "$(of_status "$process" VmHWM)"
    echo "    right: $right of $clients, 503: $refused, upstream fetches: $(($(times_asked) - asked))"
    echo "    the last to wait waited $first s, all fast clients were done after $fast s, the slow ones after $last_one s"
    memory "after: $part"
done
sleep 10
memory 'after 10 s'
grep -q . "$mirror_log" && { echo 'the mirror said:'; cat "$mirror_log"; }
exit 0
