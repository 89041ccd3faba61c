#!/usr/bin/env python3
"""What one greedy client leaves to the others: git children, connections, and turns to read index files.

    hoggers.py [--part git|connections|look-ups ...]

- git: one peer posts 6 (and 40) requests for the whole git index over HTTP/2 and grants no window; another peer runs
  `git ls-remote` and `git clone` meanwhile.
- connections: one peer opens 100 (and 700) connections and sends nothing, under RLIMIT_NOFILE=600; another peer requests
  /livez, /readyz and an index file.
- look-ups: one peer asks 42 times a second for unlisted versions of a crate with an index file of 4.9 MB, in cache mode;
  another peer looks up versions of other crates and asks for their metadata.

Prints how long the others waited and what they got. MIRROR names the binary, target/release/crates-io-mirror by default.
Runs with the project's own files on a machine with python3 and git. Loopback only: all of 127.0.0.0/8 is this machine
(on Linux). Standard library only.
Target: nobody else waits longer than without the greedy client by more than a second, and all get 200.
"""

import argparse
import multiprocessing
import os
import shutil
import socket
import subprocess
import threading
import time
from collections import Counter

from http2 import DATA, END_STREAM, PREFACE, Herd, frame, request, settings, window_update
from scene import Mirror, Site, counted, percentile, raise_file_limit

HOG = "127.0.0.2"
OTHER = "127.0.0.200"
FILES_MAX = 600
HUGE = "huge-crate"
HUGE_BYTES = 4_900_000
LOOKUPS_PER_SECOND = 42
SMALL = [f"small-{number}" for number in range(40)]
ONE_PART_SECONDS = 20


def print_row(part, times, statuses, more=""):
    p50, p99, most = (1000 * value for value in (percentile(times, 0.5), percentile(times, 0.99), percentile(times, 1)))
    print(f"{part:34} {len(times):5} {p50:8.1f} {p99:8.1f} {most:8.1f}  {counted(statuses)}  {more}", flush=True)


def request_again_and_again(mirror, paths, seconds, every=0.1, timeout=30):
    """The times and statuses of another peer's requests for these paths, in turn."""
    times, statuses, number, until = [], Counter(), 0, time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.monotonic()
        try:
            status = mirror.get(paths[number % len(paths)], OTHER, timeout)[0]
        except OSError as error:
            status = type(error).__name__
        times.append(time.monotonic() - began)
        statuses[status] += 1
        number += 1
        time.sleep(max(0, every - times[-1]))
    return times, statuses


def hog_git(mirror, count):
    """Requests for the whole index, on one connection, with a window of 0."""
    commit = mirror.get("/git/index/info/refs?service=git-upload-pack")[1].split(b"\n")[1][8:48].decode()
    body = f"0032want {commit}\n00000009done\n".encode()
    fields = [("content-type", "application/x-git-upload-pack-request")]
    frames = [PREFACE, settings(0), window_update(0, 2**30)]
    for number in range(count):
        stream = 2 * number + 1
        frames.append(request(stream, "/git/index/git-upload-pack", "POST", fields, end=False))
        frames.append(frame(DATA, END_STREAM, stream, body))
    herd = Herd()
    herd.add(mirror, b"".join(frames), HOG)
    return herd


def run_git(relay_port, directory, arguments):
    """How long git took, and its exit code."""
    environment = {
        "PATH": os.environ["PATH"], "HOME": directory, "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0",
    }
    began = time.monotonic()
    command = ["git", *arguments, f"http://127.0.0.1:{relay_port}/git/index"]
    if arguments[0] == "clone":
        command.append(os.path.join(directory, "clone"))
    try:
        code = subprocess.run(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=90
        ).returncode
    except subprocess.TimeoutExpired:
        code = "time-out"
    shutil.rmtree(os.path.join(directory, "clone"), ignore_errors=True)
    return time.monotonic() - began, code


class Relay:
    """Passes connections on to a mirror from another source address, because git cannot choose one."""

    def __init__(self, mirror, source):
        self.mirror, self.source = mirror, source
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _address = self.listener.accept()
                server = self.mirror.connect(self.source, timeout=None)
            except OSError:
                return
            for ends in ((client, server), (server, client)):
                threading.Thread(target=self.pass_on, args=ends, daemon=True).start()

    @staticmethod
    def pass_on(source, target):
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def measure_git(site):
    for count in (0, 6, 40):
        with Mirror(site) as mirror:
            relay = Relay(mirror, OTHER)
            herd = hog_git(mirror, count)
            time.sleep(2)
            for arguments in (["ls-remote"], ["clone", "--quiet", "--bare"]):
                times, codes = [], Counter()
                for _ in range(3):
                    took, code = run_git(relay.port, mirror.directory, arguments)
                    times.append(took)
                    codes[f"exit {code}"] += 1
                saw = f"| hog saw {counted(herd.statuses)}; resets {counted(herd.resets)}"
                print_row(f"git {arguments[0]}, {count} stalled", times, codes, saw)
            herd.close()
            relay.listener.close()


def measure_connections(site):
    for count in (0, 100, 700):
        with Mirror(site, files_max=FILES_MAX) as mirror:
            idle = []
            for _ in range(count):
                try:
                    idle.append(mirror.connect(HOG, timeout=2))
                except OSError:
                    break
            for path in ("/livez", "/readyz", "/index/sm/al/small-1"):
                # A client that waits longer gives up.
                times, statuses = request_again_and_again(mirror, [path], 5, timeout=10)
                print_row(f"{path}, {len(idle)} silent", times, statuses)
            for connection in idle:
                connection.close()


def look_up(mirror, stop, report):
    """Asks for unlisted versions at a steady rate, from a process of its own."""
    statuses, number = Counter(), 0

    def ask(path):
        try:
            statuses[mirror.get(path, HOG)[0]] += 1
        except OSError as error:
            statuses[type(error).__name__] += 1

    began = time.monotonic()
    while not stop.is_set():
        path = f"/api/v1/crates/{HUGE}/9.9.{number}/download"
        threading.Thread(target=ask, args=(path,), daemon=True).start()
        number += 1
        time.sleep(max(0, began + number / LOOKUPS_PER_SECOND - time.monotonic()))
    report.put((number, dict(statuses)))


def measure_lookups(site):
    kinds = {
        "downloads": [f"/api/v1/crates/{name}/1.0.0/download" for name in SMALL],
        "metadata": [f"/api/v1/crates/{name}" for name in SMALL],
        "unlisted": [f"/api/v1/crates/{name}/9.0.0/download" for name in SMALL],
    }
    for is_hogged in (False, True):
        with Mirror(site) as mirror:
            mirror.store(SMALL)
            stop, report = multiprocessing.Event(), multiprocessing.Queue()
            if is_hogged:
                hog = multiprocessing.Process(target=look_up, args=(mirror, stop, report), daemon=True)
                hog.start()
                time.sleep(3)
            for kind, paths in kinds.items():
                times, statuses = request_again_and_again(mirror, paths, ONE_PART_SECONDS / 2)
                print_row(f"{kind}, {LOOKUPS_PER_SECOND if is_hogged else 0} misses/s", times, statuses)
            stop.set()
            if is_hogged:
                number, statuses = report.get(timeout=30)
                print(f"  the hog asked {number} times and got {counted(statuses)}", flush=True)


def main():
    parts = {"git": measure_git, "connections": measure_connections, "look-ups": measure_lookups}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=sorted(parts))
    options = parser.parse_args()
    raise_file_limit()
    print(f"{'what others did':34} {'count':>5} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8}  seen")
    # The index is large enough for a pack that fills all buffers on the way.
    index = {HUGE: HUGE_BYTES, **{f"filler-{number}": 200_000 for number in range(40)}}
    with Site(index, crates=dict.fromkeys(SMALL, 40_000)) as site:
        for part in options.part or parts:
            parts[part](site)


if __name__ == "__main__":
    main()
