# Sourced by the scripts beside it: free ports, medians, clean-up. bash.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
compare=$root/benches/compare
mirror=${CARGO_TARGET_DIR:-$root/target}/release/crates-io-mirror

temporary=$(mktemp -d)
started=()

# Ends what was started, and only that.
clean_up() {
    local process
    for process in "${started[@]:-}"; do
        [ -z "$process" ] || kill -KILL "$process" 2>/dev/null || true
    done
    wait 2>/dev/null || true
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
