#!/usr/bin/env python3
"""Whether one client can take the git permits, the connections or the index look-ups of all.

    hoggers.py [--seconds 20] [git] [connections] [misses]

git: 6 and 40 POSTs of one peer, and 40 of 40 peers, that ask for a whole clone with a window of 0, while another peer runs
`git ls-remote` and `git clone` of `/git/index`, three times each. Target: with one hostile peer, all succeed.

connections: 100 and 700 silent connections of one peer, and 700 of 100 peers, under RLIMIT_NOFILE=600, while /livez,
/readyz and an index file are requested on new connections. A third each sends nothing, half a head, and HTTP/2's preface.
Target: all answer.

misses: 42 requests a second for unlisted versions of a crate with an index file of 4.9 MB, in the mode `cache`, while another
peer looks up other crates. Target: no delay that can be noticed.

Needs python3 and git; loopback, Linux.
"""

import argparse
import os
import shutil
import subprocess
import tempfile
import threading
import time

from lab import TIMES_HEAD, Asker, Http2, Lab, connect, counted, show, times_row

GIT_TRIES = 3
GIT_SECONDS_MAX = 45
NOFILE = 600
ASK_SECONDS_MAX = 10
MISSES_PER_SECOND = 42
OTHER_PEER = "127.0.0.200"


def packet(line):
    return b"%04x%b" % (len(line) + 4, line)


def clone_request(mirror):
    """A request for everything, in version 0 of git's protocol."""
    refs = mirror.get("/git/index/info/refs?service=git-upload-pack")[1]
    tip = next(line[-40:] for line in refs.split(b" HEAD\0")[:1])
    return packet(b"want " + tip + b" side-band-64k ofs-delta no-progress\n") + b"0000" + packet(b"done\n")


def git(mirror, arguments):
    """Runs git, and gives how it ended and how long that took."""
    home = tempfile.mkdtemp(prefix="attack-git-")
    environment = {"PATH": os.environ["PATH"], "HOME": home, "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}
    url = f"http://{mirror.address[0]}:{mirror.address[1]}/git/index"
    began = time.monotonic()
    try:
        command = ["git", *(url if argument == "URL" else argument for argument in arguments)]
        options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "cwd": home, "env": environment}
        ended = subprocess.run(command, timeout=GIT_SECONDS_MAX, **options)
        outcome = "ok" if ended.returncode == 0 else ended.stderr.decode(errors="replace").strip().split("\n")[-1][-60:]
    except subprocess.TimeoutExpired:
        outcome = "timeout"
    shutil.rmtree(home, ignore_errors=True)
    return outcome, time.monotonic() - began


def git_permits(lab, options, posts, peers):
    mirror = lab.mirror()
    request = clone_request(mirror)
    headers = [("content-type", "application/x-git-upload-pack-request")]
    clients = []
    for peer in range(peers):
        client = Http2(mirror.address, window=0, source=f"127.0.0.{2 + peer}")
        streams = [client.request("POST", "/git/index/git-upload-pack", headers, ends=False) for _ in range(posts // peers)]
        for stream in streams:
            client.data(stream, request, ends=True)
        clients.append((client, streams))
    ends = threading.Event()

    def keep(client):
        # Pings are answered, so that the connection counts as alive.
        while not ends.is_set() and not client.closed:
            client.pump(0.5)

    keepers = [threading.Thread(target=keep, args=(client,)) for client, _streams in clients]
    for keeper in keepers:
        keeper.start()
    time.sleep(1)
    results = {"git ls-remote": [], "git clone": []}
    for _ in range(GIT_TRIES):
        results["git ls-remote"].append(git(mirror, ["ls-remote", "URL"]))
        results["git clone"].append(git(mirror, ["clone", "--quiet", "--bare", "URL", "clone"]))
    ends.set()
    for keeper in keepers:
        keeper.join()
    outcomes = [client.outcome(stream) for client, streams in clients for stream in streams]
    print(f"{posts} git POSTs with a window of 0 from {peers} peer(s): {counted(outcomes)}")
    show(TIMES_HEAD, [times_row(name, found) for name, found in results.items()])
    mirror.stop()


BEGINNINGS = [
    b"",
    b"GET /livez HTTP/1.1\r\nHost:",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
]


def connections(lab, options, count, peers):
    mirror = lab.mirror(nofile=NOFILE)
    silent, outcomes = [], []
    # Most of 700 wait in the system's queue. It is the mirror that must choose which ones to close.
    for number in range(count):
        try:
            client = connect(mirror.address, source=f"127.0.0.{2 + number % peers}", timeout=5)
            client.sendall(BEGINNINGS[number % 3])
            silent.append(client)
        except OSError as error:
            outcomes.append(type(error).__name__)
    paths = {"/livez": "/livez", "/readyz": "/readyz", "index 200 kB": "/index/wi/de/wide"}
    askers = [Asker(mirror, {name: path}, OTHER_PEER, timeout=ASK_SECONDS_MAX) for name, path in paths.items()]
    time.sleep(options.seconds)
    results = {name: found for asker in askers for name, found in asker.stop().items()}
    for client in silent:
        client.setblocking(False)
        try:
            data = client.recv(1)
            outcomes.append("open" if data else "closed")
        except BlockingIOError:
            outcomes.append("open")
        except OSError:
            outcomes.append("reset")
        client.close()
    print(f"{count} silent connections from {peers} peer(s), RLIMIT_NOFILE={NOFILE}: {counted(outcomes)}")
    show(TIMES_HEAD, [times_row(name, found) for name, found in results.items()])
    mirror.stop()


def misses(lab, options, rate):
    mirror = lab.mirror()
    number = iter(range(1_000_000))

    def other_metadata():
        # Another crate each time, so that no cache helps.
        return f"/api/v1/crates/other-{next(number) % 200}"

    paths = {
        "metadata": other_metadata,
        "download, stored": "/api/v1/crates/small/1.0.0/download",
        "download, unlisted": lambda: f"/api/v1/crates/other-{next(number) % 200}/9.9.9/download",
        "index file": lambda: f"/index/ot/he/other-{next(number) % 200}",
    }
    mirror.get(paths["download, stored"])
    statuses, lock = [], threading.Lock()
    ends = time.monotonic() + options.seconds

    def ask(version):
        status, _body, _seconds = mirror.get(f"/api/v1/crates/huge/9.{version}.0/download", "127.0.0.2")
        with lock:
            statuses.append(status)

    askers = [Asker(mirror, {name: path}, OTHER_PEER) for name, path in paths.items()]
    asking, version, before = [], 0, cpu_seconds(mirror)
    while rate and time.monotonic() < ends:
        asking.append(threading.Thread(target=ask, args=(version,)))
        asking[-1].start()
        version += 1
        time.sleep(1 / rate)
    if not rate:
        time.sleep(options.seconds)
    used = cpu_seconds(mirror) - before
    results = {name: found for asker in askers for name, found in asker.stop().items()}
    for thread in asking:
        thread.join()
    print(f"{rate} requests/s for unlisted versions of a crate with a file of 4.9 MB: {counted(statuses) or '-'};", end=" ")
    print(f"the mirror used {used:.1f} s of processor time in {options.seconds:.0f} s")
    show(TIMES_HEAD, [times_row(name, found) for name, found in results.items()])
    mirror.stop()


def cpu_seconds(mirror):
    with open(f"/proc/{mirror.process.pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("attack", nargs="*", help="git connections misses")
    options = parser.parse_args()
    attacks = options.attack or ["git", "connections", "misses"]
    with Lab() as lab:
        origin = lab.origin
        origin.index_file("wide", 200_000)
        origin.index_file("huge", 4_900_000)
        origin.crate("small", 40_000)
        for number in range(200):
            origin.versions(f"other-{number}", 20)
        # A pack that is larger than all buffers on the way.
        origin.noisy_index_file("noise", 20_000_000)
        origin.serve()
        if "git" in attacks:
            for posts, peers in ((6, 1), (40, 1), (40, 40)):
                git_permits(lab, options, posts, peers)
        if "connections" in attacks:
            for count, peers in ((100, 1), (700, 1), (700, 100)):
                connections(lab, options, count, peers)
        if "misses" in attacks:
            for rate in (0, MISSES_PER_SECOND):
                misses(lab, options, rate)


main()
