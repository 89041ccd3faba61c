#!/usr/bin/env python3
"""Anonymous memory of the mirror while many HTTP/2 clients ask for much and take nothing.

    http2_memory.py [--connections 64] [--streams 128] [--seconds 15] [--tls] [--wait] [SURFACE ...]

Each connection says SETTINGS_INITIAL_WINDOW_SIZE=1 and sends so many requests. Each surface gets a fresh mirror:

    crates-40k, crates-1m   stored crate files
    git-gzip                git POSTs with gzip bodies of about 100 bytes that never end
    git-bomb                the same with bodies that unpack to 12 MB
    git-plain               the same without gzip, 60 kB each
    git-refs                info/refs
    metadata-32k            metadata just under 32 KiB, another crate for each of 16
    metadata-large          metadata of a crate with 5,000 versions
    index-200k              16 index files of 200 kB
    heads                   metadata, with heads of nearly 32 kB that are made of HPACK references
    heads-git               git POSTs that never end, with such heads
    http1                   as many HTTP/1.1 connections as streams / 8, which read nothing (at most 1,000)
    http1-pipelined         the same, with 100 requests each

Columns: megabytes before, at most, 2 s after the clients left, and with --wait 60 s after that; how many connections were
still open at the end of the attack; what became of the requests. Needs python3, git, for --tls openssl. Loopback only.
"""

import argparse
import gzip
import threading
import time

from lab import Http2, Lab, MemoryWatch, connect, counted, show, text

WAIT_SECONDS = 60
KINDS = 16


def gzip_that_never_ends(unpacked):
    """A body in gzip without its end: lines that a client may send, so that git does not refuse them."""
    line = b"0035shallow " + b"1" * 40 + b"\n"
    return gzip.compress(line * (unpacked // len(line)))[:-8]


GIT = ("POST", "/git/index/git-upload-pack")
GIT_HEADERS = [("content-type", "application/x-git-upload-pack-request")]
GZIP_HEADERS = [*GIT_HEADERS, ("content-encoding", "gzip")]
# A header counts its length and 32 bytes more, so that 900 of these stay below 32 KiB. A reference has one byte, and each
# header that is read takes a place in a map.
ENTRY = b"\x40" + text("x") + text("")
REFERENCES = b"\xbe" * 900


def surfaces(medium):
    def numbered(pattern):
        return lambda number: ("GET", pattern.format(number % KINDS))

    return {
        "crates-40k": (numbered("/api/v1/crates/small-{}/1.0.0/download"), [], None, b""),
        "crates-1m": (numbered("/api/v1/crates/big-{}/1.0.0/download"), [], None, b""),
        "git-gzip": (lambda _: GIT, GZIP_HEADERS, gzip_that_never_ends(64_000), b""),
        "git-bomb": (lambda _: GIT, GZIP_HEADERS, gzip_that_never_ends(12_000_000), b""),
        "git-plain": (lambda _: GIT, GIT_HEADERS, (b"0035shallow " + b"1" * 40 + b"\n") * 1_130, b""),
        "git-refs": (lambda _: ("GET", "/git/index/info/refs?service=git-upload-pack"), [], None, b""),
        "metadata-32k": (lambda n: ("GET", f"/api/v1/crates/meta-{n % KINDS}-{medium}"), [], None, b""),
        "metadata-large": (lambda _: ("GET", "/api/v1/crates/large"), [], None, b""),
        "index-200k": (numbered("/index/wi/de/wide-{}"), [], None, b""),
        "heads": (lambda n: ("GET", f"/api/v1/crates/meta-{n % KINDS}-{medium}"), [], None, REFERENCES),
        "heads-git": (lambda _: GIT, GIT_HEADERS, b"0035", REFERENCES),
    }


def attack(client, streams, surface, number):
    """Sends all requests of one connection."""
    choose, headers, body, block = surface
    for stream in range(streams):
        method, path = choose(number + stream)
        # The first request puts the entry into the table; the others refer to it.
        more = ENTRY + block[1:] if block and stream == 0 else block
        opened = client.request(method, path, headers, more, ends=body is None)
        if body is not None:
            client.data(opened, body)


class Http2Attacker(threading.Thread):
    def __init__(self, mirror, streams, surface, number, ends):
        super().__init__(daemon=True)
        self.arguments = mirror, streams, surface, number
        self.ends, self.client = ends, None
        self.start()

    def run(self):
        mirror, streams, surface, number = self.arguments
        try:
            self.client = Http2(mirror.address, context=mirror.context())
        except OSError:
            return
        attack(self.client, streams, surface, number)
        while not self.ends.is_set() and not self.client.closed:
            self.client.pump(0.5)

    def outcomes(self, streams):
        if not self.client:
            return ["refused"]
        return [self.client.outcome(1 + 2 * stream) for stream in range(streams)]


def http2(mirror, surface, options):
    ends = threading.Event()
    attackers = [
        Http2Attacker(mirror, options.streams, surface, number, ends) for number in range(options.connections)
    ]
    time.sleep(options.seconds)
    open_connections = sum(1 for attacker in attackers if attacker.client and not attacker.client.closed)
    outcomes = [outcome for attacker in attackers for outcome in attacker.outcomes(options.streams)]
    ends.set()
    for attacker in attackers:
        attacker.join()
        if attacker.client:
            attacker.client.close()
    return open_connections, len(attackers), counted(outcomes)


def http1(mirror, pipelined, options):
    """Connections that send requests and read nothing but, at the end, how the first answer begins."""
    connections, outcomes = [], []
    paths = ["/api/v1/crates/large", "/api/v1/crates/big-{}/1.0.0/download", "/index/wi/de/wide-{}"]
    for number in range(min(1_000, options.connections * options.streams // 8)):
        path = paths[number % 3].format(number % KINDS)
        try:
            client = connect(mirror.address, receive_buffer=4096, context=mirror.context("http/1.1"))
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode() * (100 if pipelined else 1))
            connections.append(client)
        except OSError as error:
            outcomes.append(type(error).__name__)
    time.sleep(options.seconds)
    for client in connections:
        try:
            client.settimeout(0.01)
            outcomes.append(client.recv(12)[9:12].decode() or "closed")
        except TimeoutError:
            outcomes.append("none")
        except OSError as error:
            outcomes.append(type(error).__name__)
        client.close()
    open_connections = sum(1 for outcome in outcomes if outcome.isdigit() or outcome == "none")
    return open_connections, len(outcomes), counted(outcomes)


def measure(lab, name, medium, options):
    mirror = lab.mirror(tls=options.tls)
    try:
        if "crates" in name or "http1" in name:
            for kind in ("small", "big"):
                for number in range(KINDS):
                    mirror.get(f"/api/v1/crates/{kind}-{number}/1.0.0/download")
            # What was used to store the files is returned, so that the start is one to compare with.
            time.sleep(2)
        before = mirror.anonymous_mb()
        watch = MemoryWatch(mirror)
        if name.startswith("http1"):
            opened, tried, outcomes = http1(mirror, name == "http1-pipelined", options)
        else:
            opened, tried, outcomes = http2(mirror, surfaces(medium)[name], options)
        peak = watch.stop()
        time.sleep(2)
        after = f"{mirror.anonymous_mb():.0f}"
        later = "-"
        if options.wait:
            time.sleep(WAIT_SECONDS)
            later = f"{mirror.anonymous_mb():.0f}"
        alive = mirror.get("/livez", timeout=10)[0]
        return [name, f"{before:.0f}", f"{peak:.0f}", after, later, f"{opened}/{tried}", outcomes, alive]
    finally:
        mirror.stop()


def main():
    every = [*surfaces(0), "http1", "http1-pipelined"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--streams", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--wait", action="store_true")
    parser.add_argument("surface", nargs="*", help=" ".join(every))
    options = parser.parse_args()
    if unknown := set(options.surface) - set(every):
        parser.error(f"no such surface: {' '.join(unknown)}")
    with Lab() as lab:
        origin = lab.origin
        for number in range(KINDS):
            origin.crate(f"small-{number}", 40_000)
            origin.crate(f"big-{number}", 1_000_000)
            origin.index_file(f"wide-{number}", 200_000)
        origin.versions("large", 5_000)
        # How much metadata a version has is not known here: the most versions that stay under 32 KiB are looked for.
        counts = range(8, 160, 2)
        for count in counts:
            for number in range(KINDS):
                origin.versions(f"meta-{number}-{count}", count)
        origin.serve()
        probe = lab.mirror(tls=options.tls)
        lengths = {count: len(probe.get(f"/api/v1/crates/meta-15-{count}")[1]) for count in counts}
        probe.stop()
        medium = max((count for count, length in lengths.items() if 0 < length < 32 * 1024), default=8)
        print(f"metadata-32k: {lengths[medium]} bytes; {options.connections} connections x {options.streams} streams")
        rows = [measure(lab, name, medium, options) for name in options.surface or every]
        show(["surface", "before", "peak MB", "after 2 s", "after 62 s", "open", "outcomes", "/livez"], rows)


main()
