#!/usr/bin/env bash
# Time and memory to the first view of an index, beside `git clone --bare --depth 1`, both over smart HTTP on loopback,
# in alternating rounds. Then the time from the start of the process to the open port.
#
#   first_snapshot.sh [CRATES] [ROUNDS]      250000 crates, 3 rounds
#
# The index is one of these:
#   BENCH_INDEX=DIR    any bare git repository of an index; it is only read. CRATES then counts for nothing
#   MAKE_INDEX=SCRIPT  a program that is called as `SCRIPT DIR CRATES` and makes a bare repository in DIR; it is not part
#                      of this project
# Without either, a simple one is made: CRATES crates with one version each.
#
# Needs git, python3 and cargo, and space for three copies of the index in TMPDIR.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

crates=${1:-250000}
rounds=${2:-3}
need git python3

build
make_index "$crates"
serve_index
echo "index: $(git -C "$index" ls-tree -r --name-only HEAD | wc -l) files at $url"

for ((round = 1; round <= rounds; round++)); do
    began=$(now)
    git clone --quiet --bare --depth 1 "$url" "$temporary/clone.git"
    since "$began" | tee -a "$temporary/times-git" | sed "s/^/round $round  git clone   /"
    rm -rf "$temporary/clone.git"

    began=$(now)
    start_mirror 0
    wait_until_ready
    since "$began" | tee -a "$temporary/times-mirror" | sed "s/^/round $round  the mirror  /"
    echo "round $round  the mirror   RssAnon $(of_status "$process" RssAnon) kB, VmHWM $(of_status "$process" VmHWM) kB"
    stop "$process"
    rm -rf "$temporary/data"
done

git_time=$(median <"$temporary/times-git")
mirror_time=$(median <"$temporary/times-mirror")
echo
awk -v git="$git_time" -v mirror="$mirror_time" \
    'BEGIN { printf "median: git clone %.2f s, the mirror %.2f s, ratio %.2f\n", git, mirror, mirror / git }'

# From the fork to the first successful connection.
python3 - "$mirror" "$(free_port)" "$temporary/bound" <<'BOUND'
import os, socket, statistics, subprocess, sys, time
program, port, data = sys.argv[1], int(sys.argv[2]), sys.argv[3]
# libgit2 must have nothing to do, because a clone would compete for the processor.
environment = dict(os.environ, BIND_ADDRESS="127.0.0.1", PORT=str(port), DATA_DIR=data, RUST_LOG="warn",
                   GIT_REPO_URL=data + "-no-such-index")
times = []
for _ in range(11):
    began = time.perf_counter()
    process = subprocess.Popen([program], env=environment, stdout=subprocess.DEVNULL)
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except ConnectionRefusedError:
            if process.poll() is not None:
                sys.exit("the mirror ended by itself")
    times.append((time.perf_counter() - began) * 1000)
    process.terminate()
    process.wait()
print(f"process start to open port: median {statistics.median(times):.1f} ms, largest {max(times):.1f} ms of {len(times)}")
BOUND
