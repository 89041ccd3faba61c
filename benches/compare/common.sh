# Sourced by the scripts beside it: free ports, medians, clean-up. bash.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
compare=$root/benches/compare
mirror=${CARGO_TARGET_DIR:-$root/target}/release/crates-io-mirror

temporary=$(mktemp -d)
started=()

# Ends what was started, and only that.
clean_up() {
    local process
    # bash would report each one that it sees killed.
    exec 2>/dev/null
    for process in "${started[@]:-}"; do
        [ -z "$process" ] || kill -KILL "$process" || true
    done
    wait || true
    rm -rf "$temporary"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

need() {
    local tool missing=()
    for tool in "$@"; do command -v "$tool" >/dev/null || missing+=("$tool"); done
    if [ ${#missing[@]} -gt 0 ]; then
        echo "missing: ${missing[*]}. On Debian or Ubuntu: apt-get install ${missing[*]}" >&2
        exit 1
    fi
}

build() { (cd "$root" && cargo build --locked --release --quiet); }

# Builds benches/quick_mirror.rs and sets $mirror to it.
build_quick_mirror() {
    mirror=$(cd "$root" && cargo build --locked --profile bench --bench quick_mirror --message-format=json --quiet |
        python3 -c 'import json, sys
for message in map(json.loads, sys.stdin):
    if message.get("executable") and message["target"]["name"] == "quick_mirror":
        print(message["executable"])')
}

# A port that nobody listens on.
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

wait_for_port() {
    local deadline=$((SECONDS + 20))
    until (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; do
        [ $SECONDS -lt $deadline ] || { echo "nobody listens on port $1" >&2; return 1; }
        sleep 0.05
    done
}

# Starts a command in the background: run_in_background LOG COMMAND…; its id is in $last.
run_in_background() {
    local log=$1
    shift
    "$@" >"$log" 2>&1 &
    last=$!
    started+=("$last")
}

# Ends a process that was started here, and waits until it is gone.
stop() {
    kill -TERM "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
}

# The median of the numbers on standard input, one a line.
median() {
    sort -g | awk '{ v[NR] = $1 } END { if (NR) print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

# A value in kB from /proc/PID/status: of_status PID RssAnon.
of_status() { awk -v name="$2:" '$1 == name { print $2 }' "/proc/$1/status"; }

now() { date +%s.%N; }

# Seconds since a `now`.
since() { awk -v began="$1" -v ended="$(now)" 'BEGIN { printf "%.2f\n", ended - began }'; }

# Sets $index to a bare repository: BENCH_INDEX, or what MAKE_INDEX makes, or a simple one of $1 crates.
make_index() {
    if [ -n "${BENCH_INDEX:-}" ]; then
        index=$(cd "$BENCH_INDEX" && pwd)
        return
    fi
    index=$temporary/index.git
    if [ -n "${MAKE_INDEX:-}" ]; then
        "$MAKE_INDEX" "$index" "$1"
        return
    fi
    git init --quiet --bare --initial-branch=master "$index"
    python3 "$compare/simple_index.py" "$1" | git -C "$index" fast-import --quiet
    git -C "$index" repack -a -d --quiet
}

# Serves $index over smart HTTP; sets $url. The address is the index's name below a directory that holds nothing else.
serve_index() {
    mkdir "$temporary/served"
    ln -s "$index" "$temporary/served/index.git"
    python3 "$compare/git_http_server.py" "$temporary/served" >"$temporary/git-port" 2>"$temporary/git-server.log" &
    started+=($!)
    local deadline=$((SECONDS + 10))
    until [ -s "$temporary/git-port" ]; do
        [ $SECONDS -lt $deadline ] || { cat "$temporary/git-server.log" >&2; return 1; }
        sleep 0.05
    done
    url=http://127.0.0.1:$(<"$temporary/git-port")/index.git
}

# start_mirror REFRESH_INTERVAL_SECS: follows $url; its id is in $process, its port in $port.
start_mirror() {
    port=$(free_port)
    run_in_background "$temporary/mirror.log" env BIND_ADDRESS=127.0.0.1 PORT="$port" DATA_DIR="$temporary/data" \
        GIT_REPO_URL="$url" REFRESH_INTERVAL_SECS="$1" LOG_FORMAT=text RUST_LOG=warn,crates_io_mirror::request=off "$mirror"
    process=$last
}

# wait_until_ready [COMMIT]: until /readyz is 200 and, if given, shows this commit.
wait_until_ready() {
    python3 - "$port" "$process" "${1:-}" <<'READY' || { cat "$temporary/mirror.log" >&2; return 1; }
import http.client, json, os, sys, time
port, process, commit = int(sys.argv[1]), sys.argv[2], sys.argv[3]
deadline = time.monotonic() + 600
while time.monotonic() < deadline and os.path.exists(f"/proc/{process}"):
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        report = json.load(answer)
        connection.close()
        if answer.status == 200 and commit in ("", report["index"]["commit"]):
            sys.exit(0)
    except ConnectionRefusedError:
        pass
    time.sleep(0.02)
sys.exit("the mirror did not become ready")
READY
}
