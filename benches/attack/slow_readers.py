#!/usr/bin/env python3
"""Whether slow readers block the large answers of others.

    slow_readers.py [--seconds 30] [--hostile 100] [--rate 800]

Two attacks, each on a fresh mirror: two connections of one peer with 27 streams each, and 100 peers (127.0.0.2 and the
following ones) with 54 streams each. Half of the streams ask for metadata of 2.4 MB, the others for different index files,
32 MiB together; each then takes 800 bytes a second. A new peer (127.0.0.200) meanwhile requests an index file of 200 kB, that
metadata and a small answer, again and again. Target: no 503 for it, and a p99 of 1 s for the index file.

Prints the times of the new peer, and what became of the hostile requests. Needs python3 and git; loopback, Linux.
"""

import argparse
import threading
import time

from lab import TIMES_HEAD, Asker, Http2, Lab, counted, show, times_row

STREAMS = 27
# Together a little less than 32 MiB, so that a budget of that size is used up to its end.
FILE_BYTES = [1_300_000] * 24 + [750_000] * 3
NEW_PEER = "127.0.0.200"
METADATA = "/api/v1/crates/large"
TICK_SECONDS = 1.0


class SlowReader(threading.Thread):
    """A connection with many requests, each of which takes so many bytes a second."""

    def __init__(self, mirror, source, paths, rate, ends):
        super().__init__(daemon=True)
        self.mirror, self.source, self.paths, self.rate, self.ends = mirror, source, paths, rate, ends
        self.client = None
        self.asked = threading.Event()
        self.start()

    def run(self):
        try:
            self.client = Http2(self.mirror.address, window=self.rate, source=self.source)
            self.streams = [self.client.request("GET", path) for path in self.paths]
        except OSError:
            pass
        self.asked.set()
        if not self.client:
            return
        while not self.ends.is_set() and not self.client.closed:
            self.client.pump(TICK_SECONDS)
            for stream in set(self.streams) - self.client.ended:
                if self.client.received[stream]:
                    self.client.grant(stream, self.rate)

    def outcomes(self):
        if not self.client:
            return ["refused"]
        return [self.client.outcome(stream) for stream in self.streams]


def files(first):
    return [f"/index/sl/ow/slow-{(first + number) % STREAMS}" for number in range(STREAMS)]


def measure(lab, hostile, options):
    mirror = lab.mirror()
    ends = threading.Event()
    rate = options.rate
    if hostile:
        readers = [
            SlowReader(mirror, f"127.0.0.{2 + number}", [METADATA] * STREAMS + files(number), rate, ends)
            for number in range(hostile)
        ]
    else:
        readers = [
            SlowReader(mirror, "127.0.0.2", paths, rate, ends) for paths in ([METADATA] * STREAMS, files(0))
        ]
    for reader in readers:
        reader.asked.wait(30)
    time.sleep(3)
    paths = {"index 200 kB": "/index/wi/de/wide", "metadata 2.4 MB": METADATA, "/livez": "/livez"}
    # Each kind in a thread of its own, so that a slow one does not make the others rare.
    askers = [Asker(mirror, {name: path}, NEW_PEER) for name, path in paths.items()]
    time.sleep(options.seconds)
    results = {name: found for asker in askers for name, found in asker.stop().items()}
    ends.set()
    for reader in readers:
        reader.join()
    print(f"{hostile or 1} hostile peers, {len(readers)} connections:", end=" ")
    print(counted(outcome for reader in readers for outcome in reader.outcomes()))
    show(TIMES_HEAD, [times_row(name, found) for name, found in results.items()])
    mirror.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--hostile", type=int, default=100)
    parser.add_argument("--rate", type=int, default=800)
    options = parser.parse_args()
    with Lab() as lab:
        lab.origin.versions("large", 5_000)
        lab.origin.index_file("wide", 200_000)
        for number in range(STREAMS):
            lab.origin.index_file(f"slow-{number}", FILE_BYTES[number])
        lab.origin.serve()
        measure(lab, 0, options)
        measure(lab, min(options.hostile, 190), options)


main()
