#!/usr/bin/env python3
"""Slow but steady readers get everything: a large answer at 20 kB/s over each protocol, all at the same time.

    slow_but_steady.py [--megabytes 20] [--pace 20000] [--receive-buffer 0]

Reads a crate file over HTTP/1.1 and HTTP/2, both plain and over TLS, an index file (of the same size, at most 4.9 MB,
for index files larger than that do not occur) and the git index. 20 MB at 20 kB/s take 1,000 s. The system's usual
receive buffer is the hard case: it takes 100 s of reading before the window opens again. Prints how many bytes came, how
long that took, and what the request event says (`bytes` and `cut`).

MIRROR names the binary, target/release/crates-io-mirror by default. Runs with the project's own files on a machine with
python3, git and openssl. Loopback only. Standard library only.
Target: every reader gets everything, and no event says `cut`.
"""

import argparse
import threading
import time

from http2 import DATA, END_STREAM, PREFACE, RESET, SETTINGS, ACK, PING, frame, request, settings, window_update
from scene import Mirror, Site, raise_file_limit

INDEX_BYTES_MAX = 4_900_000
CRATE = "large-crate"
INDEX_CRATE = "large-index"
READ_TIME_MAX = 60
# The window that an HTTP/2 client grants at a time, like most clients.
WINDOW = 64 * 1024


class Reader(threading.Thread):
    """Reads one answer at a steady pace, until it ends or nothing more comes."""

    def __init__(self, name, mirror, protocol, path, body, pace, receive_buffer, source):
        super().__init__(daemon=True)
        self.title, self.mirror, self.protocol, self.path, self.body = name, mirror, protocol, path, body
        self.pace, self.receive_buffer, self.source = pace, receive_buffer, source
        self.body_bytes, self.raw_bytes, self.expected, self.outcome = 0, 0, None, "?"
        self.began = self.took = 0

    def run(self):
        self.began = time.monotonic()
        try:
            sock = self.mirror.connect(self.source, self.receive_buffer, self.protocol, READ_TIME_MAX)
            sock.sendall(self.opening())
            self.outcome = (self.read_http2 if self.protocol == "h2" else self.read_http1)(sock)
            sock.close()
        except OSError as error:
            self.outcome = f"{type(error).__name__}: {error}"
        self.took = time.monotonic() - self.began

    def opening(self):
        fields = [("content-type", "application/x-git-upload-pack-request")] if self.body else []
        method = "POST" if self.body else "GET"
        if self.protocol == "h2":
            asked = request(1, self.path, method, fields, end=not self.body)
            body = frame(DATA, END_STREAM, 1, self.body) if self.body else b""
            return PREFACE + settings(WINDOW) + asked + body
        lines = [f"{method} {self.path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in fields]
        if self.body:
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join([*lines, "", ""]).encode() + self.body

    def paced(self, sock):
        """The next bytes, so few of them that the pace is kept. Empty at the end of the connection."""
        time.sleep(max(0, self.began + self.raw_bytes / self.pace - time.monotonic()))
        data = sock.recv(self.pace // 5)
        self.raw_bytes += len(data)
        return data

    def read_http1(self, sock):
        head = b""
        while b"\r\n\r\n" not in head:
            data = self.paced(sock)
            if not data:
                return "closed in the head"
            head += data
        head, _, beginning = head.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        length = fields.get(b"content-length")
        self.expected = int(length) if length else None
        self.body_bytes, last = len(beginning), beginning[-5:]
        while data := self.paced(sock):
            self.body_bytes += len(data)
            last = (last + data)[-5:]
        is_whole = self.body_bytes == self.expected if length else last == b"0\r\n\r\n"
        return "whole" if is_whole else "cut"

    def read_http2(self, sock):
        buffered, granted = b"", 0
        while True:
            data = self.paced(sock)
            if not data:
                return "cut: connection closed"
            buffered += data
            while len(buffered) >= 9 + (length := int.from_bytes(buffered[:3], "big")):
                kind, flags, payload = buffered[3], buffered[4], buffered[9 : 9 + length]
                buffered = buffered[9 + length :]
                if kind == DATA:
                    self.body_bytes += length
                    granted += length
                    if flags & END_STREAM:
                        return "whole"
                    if granted >= WINDOW // 2:
                        sock.sendall(window_update(0, granted) + window_update(1, granted))
                        granted = 0
                elif kind == SETTINGS and not flags & ACK:
                    sock.sendall(frame(SETTINGS, ACK, 0))
                elif kind == PING and not flags & ACK:
                    sock.sendall(frame(PING, ACK, 0, payload))
                elif kind == RESET:
                    return "cut: stream reset"


def readers(mirror, options, first_source):
    refs = mirror.get("/git/index/info/refs?service=git-upload-pack")[1]
    commit = refs.split(b"\n")[1][8:48].decode()
    want = f"0032want {commit}\n00000009done\n".encode()
    wanted = {
        "crate": (f"/api/v1/crates/{CRATE}/1.0.0/download", b""),
        "index": (f"/index/{INDEX_CRATE[:2]}/{INDEX_CRATE[2:4]}/{INDEX_CRATE}", b""),
        "git": ("/git/index/git-upload-pack", want),
    }
    source = first_source
    for protocol in ("http/1.1", "h2"):
        for kind, (path, body) in wanted.items():
            name = f"{kind}, {protocol}{', TLS' if mirror.tls else ''}"
            # Each reader has an address of its own, which identifies its event.
            yield Reader(name, mirror, protocol, path, body, options.pace, options.receive_buffer,
                         f"127.0.0.{source}")
            source += 1


def event_of(mirror, reader):
    """The event of a reader's answer. Earlier versions have no field `client`, so there the path identifies it."""
    events = [event for event in mirror.events() if event.get("path") == reader.path.partition("?")[0]]
    own = [event for event in events if event.get("client") == reader.source]
    event = (own or events or [{}])[-1]
    return f"status={event.get('status')} bytes={event.get('bytes')} cut={event.get('cut')}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=20)
    parser.add_argument("--pace", type=int, default=20_000, help="bytes per second")
    parser.add_argument("--receive-buffer", type=int, default=0, help="0 leaves it to the system")
    options = parser.parse_args()
    raise_file_limit()
    length = int(options.megabytes * 1_000_000)
    # Checksums do not compress in a pack. The git answer has about 40 % of this size.
    filler = {f"filler-{number}": 1_000_000 for number in range(int(options.megabytes * 4) + 1)}
    index = {INDEX_CRATE: min(length, INDEX_BYTES_MAX), **filler}
    with Site(index, crates={CRATE: length}) as site, Mirror(site) as plain, Mirror(site, tls=True) as over_tls:
        for mirror in (plain, over_tls):
            mirror.store([CRATE])
        running = [*readers(plain, options, 10), *readers(over_tls, options, 30)]
        for reader in running:
            reader.start()
        print(f"{'answer':22} {'bytes':>10} {'of':>10} {'s':>6}  outcome; event", flush=True)
        for reader in running:
            reader.join()
            # The event is written when the connection has ended on both sides.
            time.sleep(0.5)
            expected = reader.expected if reader.expected is not None else "-"
            print(f"{reader.title:22} {reader.body_bytes:10} {expected:>10} {reader.took:6.0f}  "
                  f"{reader.outcome}; {event_of(reader.mirror, reader)}", flush=True)


if __name__ == "__main__":
    main()
