#!/usr/bin/env python3
"""What slow readers do to the others: answers that are read at 0.8 kB/s, while a new peer wants an index file.

    slow_readers.py [--seconds 30] [--part two-connections|hundred-peers ...]

- two-connections: 54 streams on two HTTP/2 connections of one peer.
- hundred-peers: 100 peers, 127.0.0.2 to 127.0.0.101, each with a connection of 27 streams.

Some of the streams want index files of 3 MB, some index files of 200 kB, the others metadata of crates with many
versions. The peer 127.0.0.200
requests an index file of 200 kB every 100 ms, each time on a new connection. Prints its p50, p99 and maximum, the
statuses that it got, and what the slow readers saw.

MIRROR names the binary, target/release/crates-io-mirror by default. Runs with the project's own files on a machine with
python3 and git. Loopback only: all of 127.0.0.0/8 is this machine (on Linux). Standard library only.
Target: a p99 below 1 s, and no 503 for the new peer.
"""

import argparse
import multiprocessing
import time
from collections import Counter

from http2 import PREFACE, Herd, request, settings, window_update
from scene import Mirror, Site, Watch, counted, percentile, raise_file_limit

SLOW_PACE = 800
MEASURED_PEER = "127.0.0.200"
MEASURE_EVERY = 0.1
HEAD_START = 5
LARGE = [f"large-{number}" for number in range(27)]
# As long as the file that the new peer requests, so that no gap is left for it.
FILLING = [f"filling-{number}" for number in range(16)]
LARGE_STREAMS = 12
WANTED = [f"index-{number}" for number in range(16)]

PARTS = {
    "two-connections": [("127.0.0.2", 27), ("127.0.0.2", 27)],
    "hundred-peers": [(f"127.0.0.{number}", 27) for number in range(2, 102)],
}


def index_file(name):
    return f"/index/{name[:2]}/{name[2:4]}/{name}"


def read_slowly(mirror, part, ready, stop, report):
    """Runs in a process of its own, so that it does not slow down the one that measures."""
    herd = Herd()

    def grant(herd):
        for client in list(herd.clients):
            if client.ended is None and client.open_streams:
                updates = [window_update(stream, SLOW_PACE) for stream in client.open_streams]
                herd.send(client, b"".join(updates))

    for source, streams in PARTS[part]:
        frames = [PREFACE, settings(SLOW_PACE), window_update(0, 2**30)]
        for number in range(streams):
            name = LARGE[number % len(LARGE)]
            if number % 2 == 1:
                path = f"/api/v1/crates/{name}"
            elif number < LARGE_STREAMS:
                path = index_file(name)
            else:
                path = index_file(FILLING[number // 2 % len(FILLING)])
            frames.append(request(2 * number + 1, path))
        herd.add(mirror, b"".join(frames), source)
    herd.each_second = grant
    ready.set()
    stop.wait()
    saw = counted(herd.statuses) + (f"; resets {counted(herd.resets)}" if herd.resets else "")
    report.put(f"{saw}; open {herd.count()}")
    herd.close()


def measure(site, part, seconds):
    with Mirror(site) as mirror, Watch(mirror) as watch:
        ready, stop, report = multiprocessing.Event(), multiprocessing.Event(), multiprocessing.Queue()
        slow = multiprocessing.Process(target=read_slowly, args=(mirror, part, ready, stop, report), daemon=True)
        slow.start()
        ready.wait(60)
        time.sleep(HEAD_START)
        times, statuses, number = [], Counter(), 0
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            began = time.monotonic()
            try:
                status = mirror.get(index_file(WANTED[number % len(WANTED)]), MEASURED_PEER)[0]
            except OSError as error:
                status = type(error).__name__
            statuses[status] += 1
            times.append(time.monotonic() - began)
            number += 1
            time.sleep(max(0, MEASURE_EVERY - times[-1]))
        stop.set()
        saw = report.get(timeout=30)
        slow.join(30)
        p50, p99 = percentile(times, 0.5), percentile(times, 0.99)
        print(f"{part:16} {p50 * 1000:8.1f} {p99 * 1000:8.1f} {max(times) * 1000:8.1f} {watch.peak:8.0f}  "
              f"{counted(statuses)} | slow readers: {saw}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--part", action="append", choices=sorted(PARTS))
    options = parser.parse_args()
    raise_file_limit()
    print(f"{'part':16} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8} {'RssAnon':>8}  seen")
    with Site({**dict.fromkeys(LARGE, 3_000_000), **dict.fromkeys(FILLING + WANTED, 200_000)}) as site:
        for part in options.part or PARTS:
            measure(site, part, options.seconds)


if __name__ == "__main__":
    main()
