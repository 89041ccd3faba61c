# Sourced by the other scripts here: servers, free ports, medians, clean-up. Needs bash.

# Numbers with a decimal point, whatever the user's language is.
export LC_ALL=C

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
compare=$root/benches/compare
mirror=${CARGO_TARGET_DIR:-$root/target}/release/crates-io-mirror

temporary=$(mktemp -d)
started=()
# Processes with children, which end only after SIGTERM.
started_kindly=()
# A command that starts servers and clients elsewhere: `ip netns exec NAME`.
at_server=()
# shellcheck disable=SC2034  # the scripts use it
at_client=()

# Ends only what was started here.
clean_up() {
    local process
    # bash would report each killed process.
    exec 2>/dev/null
    for process in "${started_kindly[@]}"; do stop "$process"; done
    for process in "${started[@]}"; do kill -KILL "$process" || true; done
    wait || true
    if declare -F clean_up_more >/dev/null; then clean_up_more || true; fi
    rm -rf "$temporary"
}
trap clean_up EXIT
# Without PIPE, `script.sh | head` would leave everything running.
trap 'exit 130' INT TERM HUP PIPE

need() {
    local tool missing=()
    for tool in "$@"; do command -v "$tool" >/dev/null || missing+=("$tool"); done
    if [ ${#missing[@]} -gt 0 ]; then
        echo "missing: ${missing[*]}. On Debian or Ubuntu: apt-get install ${missing[*]}" >&2
        exit 1
    fi
}

build() { (cd "$root" && cargo build --locked --release --quiet); }

# Builds a program of benches/, and prints where it is.
build_bench() {
    (cd "$root" && cargo build --locked --release --quiet --bench "$1" --message-format=json) | python3 -c '
import json, sys
for message in map(json.loads, sys.stdin):
    if message.get("target", {}).get("name") == sys.argv[1] and message.get("executable"):
        print(message["executable"])' "$1"
}

# A port that nobody listens on.
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

wait_for_port() {
    local deadline=$((SECONDS + 20))
    # shellcheck disable=SC2016  # the inner shell expands it
    until "${at_server[@]}" bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$0"' "$1" 2>/dev/null; do
        [ $SECONDS -lt $deadline ] || { echo "nobody listens on port $1" >&2; return 1; }
        sleep 0.05
    done
}

# Starts a command in the background: run_in_background LOG COMMAND…. Its process id is in $last.
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

# Writes the largest anonymous memory of a process to a file, in kB, until the process ends, because the kernel has no
# such mark. The file must not exist yet. watch_memory PROCESS FILE
watch_memory() {
    run_in_background /dev/null python3 -c '
import sys, time
most = 0
while True:
    try:
        with open(f"/proc/{sys.argv[1]}/status") as status:
            anonymous = next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))
    except (OSError, StopIteration):
        break
    if anonymous > most:
        most = anonymous
        with open(sys.argv[2], "w") as file:
            file.write(f"{most}\n")
    time.sleep(0.02)' "$1" "$2"
    # The measured work begins when the caller continues.
    until [ -s "$2" ] || ! kill -0 "$1" 2>/dev/null; do sleep 0.01; done
}

now() { echo "$EPOCHREALTIME"; }

# Seconds since a `now`.
since() { awk -v began="$1" -v ended="$EPOCHREALTIME" 'BEGIN { printf "%.3f\n", ended - began }'; }

# Sets $index to a bare repository: BENCH_INDEX, the result of MAKE_INDEX, or a simple one of $1 crates.
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

# The same, as a copy that can get commits.
make_own_index() {
    make_index "$1"
    if [ -n "${BENCH_INDEX:-}" ]; then
        cp -a "$index" "$temporary/index.git"
        index=$temporary/index.git
    fi
}

# Serves $index over smart HTTP, and sets $url. The path is the name of the index, in a directory without other files.
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

# Copies the index files below BENCH_FILES, or those of tests/fixtures, to $temporary/www/index for nginx. Commits them
# to a repository for the mirror, $url.
make_site() {
    local files
    files=$(cd "${BENCH_FILES:-$root/tests/fixtures/index}" && pwd)
    mkdir "$temporary/www"
    cp -r --no-preserve=mode "$files" "$temporary/www/index"
    rm -rf "$temporary/www/index/.git"
    url=$temporary/work
    git init --quiet --initial-branch=master "$url"
    cp -r "$temporary/www/index/." "$url"
    git -C "$url" add --all
    git -C "$url" -c user.name=bench -c user.email=bench@example commit --quiet --message files
}

# Makes crate files and an index that lists them: make_crates COUNTxBYTES…. Sets $url to the index. The files are where
# nginx serves them. Their names are in the file $temporary/names, one size after the other.
make_crates() {
    python3 "$compare/make_crates.py" "$temporary/made" "$@"
    mkdir -p "$temporary/www"
    mv "$temporary/made/files/crates" "$temporary/www/crates"
    find "$temporary/www/crates" -mindepth 1 -maxdepth 1 -printf '%f\n' | sort -V >"$temporary/names"
    url=$temporary/made/index.git
}

# The paths of the crates on standard input, at one server: paths_at nginx or mirror.
paths_at() {
    case $1 in
        nginx*) sed 's|.*|/crates/&/&-1.0.0.crate|' ;;
        *) sed 's|.*|/api/v1/crates/&/1.0.0/download|' ;;
    esac
}

# The settings of a mirror that fetches the files of make_crates from an nginx on this port.
fetch_from() {
    echo DOWNLOAD_MODE=cache "DOWNLOAD_URL=http://127.0.0.1:$1/crates/{crate}/{crate}-{version}.crate"
}

# The number of requests to an nginx with its log in $temporary/upstream.log. nginx logs a request after its last byte.
times_asked() {
    sleep 0.2
    wc -l <"$temporary/upstream.log"
}

# The process ids of an nginx of start_nginx, except the one that serves nothing.
nginx_workers() { cat "/proc/$(<"$temporary/nginx.pid")/task/$(<"$temporary/nginx.pid")/children"; }

# The processor time of processes so far, in seconds.
processor_time() {
    local process
    # The text before the last ) can contain spaces.
    for process in "$@"; do sed 's/.*) //' "/proc/$process/stat"; done |
        awk -v ticks="$(getconf CLK_TCK)" '{ sum += $12 + $13 } END { printf "%.2f\n", sum / ticks }'
}

# Starts nginx with the `server` blocks on standard input, with two workers and without a log. It keeps served files
# open, and closes no connection.
start_nginx() {
    local files_max
    # One worker can get most connections, and answers 500 when it has no descriptor for another file.
    files_max=$(ulimit -Hn)
    [ "$files_max" != unlimited ] || files_max=1000000
    cat >"$temporary/nginx.conf" <<NGINX
worker_processes ${nginx_worker_count:-2};
worker_rlimit_nofile $files_max;
daemon off;
pid $temporary/nginx.pid;
error_log $temporary/nginx.err;
events { worker_connections 1024; }
http {
    access_log off;
    keepalive_requests 1000000000;
    sendfile on;
    tcp_nopush on;
    open_file_cache max=$((files_max - 2000)) inactive=300s;
    open_file_cache_valid 300s;
    default_type text/plain;
    client_body_temp_path $temporary/body;
    proxy_temp_path $temporary/proxy;
    fastcgi_temp_path $temporary/fastcgi;
    uwsgi_temp_path $temporary/uwsgi;
    scgi_temp_path $temporary/scgi;
    $(cat)
}
NGINX
    # The workers of an nginx that root has started run as another user.
    chmod a+rx "$temporary"
    if [ -d "$temporary/www" ]; then chmod -R a+rX "$temporary/www"; fi
    "${at_server[@]}" nginx -e "$temporary/nginx.err" -c "$temporary/nginx.conf" -p "$temporary" &
    started_kindly+=($!)
}

# start_mirror REFRESH_INTERVAL_SECS [NAME=VALUE…]: a mirror of $url. Its process id is in $process, its port in $port,
# and its output in the file $mirror_log.
start_mirror() {
    local interval=$1
    shift
    port=$(free_port)
    mirror_log=$temporary/mirror-$port.log
    run_in_background "$mirror_log" "${at_server[@]}" env BIND_ADDRESS=127.0.0.1 PORT="$port" \
        DATA_DIR="$temporary/data" GIT_REPO_URL="$url" REFRESH_INTERVAL_SECS="$interval" LOG_FORMAT=text \
        RUST_LOG=warn,crates_io_mirror::request=off "$@" "$mirror"
    process=$last
}

# wait_until_ready [COMMIT]: waits until /readyz gives 200 and, if given, shows this commit. With CA=FILE it uses TLS.
wait_until_ready() {
    "${at_server[@]}" python3 - "$port" "$process" "${1:-}" "${CA:-}" <<'READY' || { cat "$mirror_log" >&2; return 1; }
import http.client, json, os, ssl, sys, time
port, process, commit, authority = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
deadline = time.monotonic() + 600
while time.monotonic() < deadline and os.path.exists(f"/proc/{process}"):
    try:
        if authority:
            context = ssl.create_default_context(cafile=authority)
            connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        report = json.load(answer)
        connection.close()
        if answer.status == 200 and commit in ("", report["index"]["commit"]):
            sys.exit(0)
    except ConnectionRefusedError:
        pass
    except ssl.SSLError as error:
        sys.exit(f"the mirror does not speak TLS: {error}")
    time.sleep(0.02)
sys.exit("the mirror did not become ready")
READY
}
