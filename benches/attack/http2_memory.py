#!/usr/bin/env python3
"""The memory that clients can tie up: many connections with many requests each that grant no window for the answers.

    http2_memory.py [--connections 64] [--streams 128] [--window 1] [--hold 10] [--wait] [--tls] [--surface NAME ...]

Starts a mirror for each surface and prints its anonymous memory (RssAnon) before, at its peak and, with --wait, 60 s
after the clients have left; the connections that were open at the end; and the statuses that clients saw. The surface
`http1` opens 1,000 connections that read nothing; the surfaces with `heads` make each request head 31 kB long by
references to the table of HPACK.

MIRROR names the binary, target/release/crates-io-mirror by default: run this twice to compare two. Runs with the
project's own files on a machine with python3 and git (and openssl for --tls). Loopback only. Standard library only.
Target: a peak below 150 MB, and after a minute at most 20 MB more than before.
"""

import argparse
import time
import zlib

from http2 import DATA, PREFACE, Herd, frame, literal, request, settings, window_update, integer
from scene import Mirror, Site, Watch, counted, raise_file_limit

CRATES_40K = [f"small-{number}" for number in range(16)]
CRATES_1M = [f"large-{number}" for number in range(8)]
INDEX_200K = [f"index-{number}" for number in range(64)]
METADATA_BELOW = 32 * 1024
HTTP1_CONNECTIONS = 1000
WAIT_SECONDS = 60

# The table of a connection takes 4,096 bytes, 32 of them for each entry.
LARGE_HEADER = literal(b"x-large", b"a" * 3900, indexed=True)
REFERENCES = integer(0x80, 7, 62) * 7


def endless_gzip(length):
    """The beginning of a gzip stream of this many bytes, which does not end."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return packer.compress(b"0" * length) + packer.flush(zlib.Z_SYNC_FLUSH)


def downloads(names):
    return [f"/api/v1/crates/{name}/1.0.0/download" for name in names]


def index_files(names):
    return [f"/index/{name[:2]}/{name[2:4]}/{name}" for name in names]


def longest_metadata_below(mirror, length):
    """The path of a metadata answer that is just below this length."""
    best = (0, "")
    for count in range(1, 121):
        path = f"/api/v1/crates/versions-{count}"
        size = len(mirror.get(path)[1])
        if size >= length:
            break
        best = max(best, (size, path))
    return best[1]


def gets(paths, streams, heads=False):
    """The frames of so many requests for these paths in turn."""
    frames = []
    for number in range(streams):
        # The first one puts the header into the table.
        more = (LARGE_HEADER + REFERENCES if number == 0 else REFERENCES + REFERENCES[:1]) if heads else b""
        frames.append(request(2 * number + 1, paths[number % len(paths)], more=more))
    return b"".join(frames)


def git_posts(streams, body):
    # A mirror grants 64 kB for all bodies of a connection together. More would violate the protocol.
    streams = min(streams, 65_535 // len(body))
    fields = [("content-type", "application/x-git-upload-pack-request"), ("content-encoding", "gzip")]
    frames = []
    for number in range(streams):
        stream = 2 * number + 1
        frames.append(request(stream, "/git/index/git-upload-pack", "POST", fields, end=False))
        frames.append(frame(DATA, 0, stream, body))
    return b"".join(frames)


def surfaces(mirror, streams):
    """The frames of each connection after its settings, by name. Made when they are needed."""
    refs = "/git/index/info/refs?service=git-upload-pack"
    return {
        "crates-40k": lambda: gets(downloads(CRATES_40K), streams),
        "crates-1m": lambda: gets(downloads(CRATES_1M), streams),
        "git-posts": lambda: git_posts(streams, endless_gzip(60_000)),
        "git-posts-large": lambda: git_posts(streams, endless_gzip(400_000)),
        "git-refs": lambda: gets([refs], streams),
        "metadata-32k": lambda: gets([longest_metadata_below(mirror, METADATA_BELOW)], streams),
        "metadata-large": lambda: gets([f"/api/v1/crates/{name}" for name in INDEX_200K], streams),
        "index-200k": lambda: gets(index_files(INDEX_200K), streams),
        "search": lambda: gets(["/api/v1/crates?q=e&per_page=100"], streams),
        "openapi": lambda: gets(["/api/openapi.json"], streams),
        "metrics": lambda: gets(["/metrics"], streams),
        "pages": lambda: gets(["/", "/status", "/me"], streams),
        "heads-livez": lambda: gets(["/livez"], streams, heads=True),
        "heads-metadata": lambda: gets([longest_metadata_below(mirror, METADATA_BELOW)], streams, heads=True),
        "heads-git-refs": lambda: gets([refs], streams, heads=True),
        "http1": lambda: b"",
    }


def attack_by_http1(herd, mirror):
    paths = downloads(CRATES_1M) + index_files(INDEX_200K) + [f"/api/v1/crates/{name}" for name in INDEX_200K]
    for number in range(HTTP1_CONNECTIONS):
        path = paths[number % len(paths)]
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        herd.add(mirror, head, protocol="http/1.1", reads=False, receive_buffer=4096)


def measure(site, name, options):
    with Mirror(site, tls=options.tls) as mirror:
        mirror.store(CRATES_40K + CRATES_1M)
        requests = surfaces(mirror, options.streams)[name]()
        time.sleep(1)
        before = mirror.memory()
        herd = Herd()
        with Watch(mirror) as watch:
            if name == "http1":
                attack_by_http1(herd, mirror)
            else:
                opening = PREFACE + settings(options.window) + window_update(0, 2**30)
                for _ in range(options.connections):
                    herd.add(mirror, opening + requests)
            time.sleep(options.hold)
            open_now = herd.count()
            try:
                live = mirror.get("/livez", source="127.0.0.200", timeout=5)[0]
            except OSError as error:
                live = type(error).__name__
        herd.close()
        after = ""
        if options.wait:
            time.sleep(WAIT_SECONDS)
            after = f"{mirror.memory():.0f}"
        saw = counted(herd.statuses)
        if herd.resets:
            saw += "; resets " + counted(herd.resets)
        if herd.ended or herd.refused:
            saw += f"; refused {herd.refused}, ended " + counted(herd.ended)
        print(f"{name:16} {before:7.0f} {watch.peak:7.0f} {after:>7} {open_now:6} {live!s:>7}  {saw}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--streams", type=int, default=128)
    parser.add_argument("--window", type=int, default=1)
    parser.add_argument("--hold", type=float, default=10, help="seconds that clients stay")
    parser.add_argument("--wait", action="store_true", help=f"measure once more after {WAIT_SECONDS} s")
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--surface", action="append", choices=sorted(surfaces(None, 0)))
    options = parser.parse_args()
    raise_file_limit()
    sizes = dict.fromkeys(INDEX_200K, 200_000)
    versions = {f"versions-{count}": count for count in range(1, 121)}
    crates = {**dict.fromkeys(CRATES_40K, 40_000), **dict.fromkeys(CRATES_1M, 1_000_000)}
    print(f"{options.connections} connections x {options.streams} streams, window {options.window}, "
          f"{'TLS' if options.tls else 'plain'}; RssAnon in MB")
    print(f"{'surface':16} {'before':>7} {'peak':>7} {'after':>7} {'open':>6} {'/livez':>7}  seen")
    with Site(sizes, versions, crates) as site:
        for name in options.surface or surfaces(None, 0):
            measure(site, name, options)


if __name__ == "__main__":
    main()
