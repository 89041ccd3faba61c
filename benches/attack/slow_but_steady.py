#!/usr/bin/env python3
"""Whether a slow but steady reader gets everything, over each protocol, and what the log says of those that do not.

    slow_but_steady.py [--megabytes 20] [--rate 20000] [--receive-buffer BYTES] [--silent]

All transfers run at the same time, on one mirror without TLS and one with: a crate file, an index file and a clone by git,
over HTTP/1.1, HTTP/2 and both over TLS. Each reads so many bytes a second; 20 MB at 20 kB/s take 1,000 s. With --silent each
reads the first 100 kB and then nothing for 60 s: these must be cut after 30 s. The receive buffers are the system's, unless
--receive-buffer is given; the mirror's own send buffer is then all that hides a slow reader.

Prints bytes that were received and sent for (body bytes; git has no length), the seconds, how it ended, and what the request
event says in `status`, `bytes` and `cut`. Needs python3, git and openssl; loopback only.
"""

import argparse
import threading
import time

from hoggers import clone_request
from lab import Http2, Lab, connect, show

SILENT_AFTER = 100_000
SILENT_SECONDS = 60
TICK_SECONDS = 0.25
# The system keeps back window updates of a small receive buffer for a while.
END_SECONDS_MAX = 120


class Transfer(threading.Thread):
    def __init__(self, name, mirror, over, method, path, body, options):
        super().__init__(daemon=True)
        self.mirror, self.over, self.method, self.path, self.body = mirror, over, method, path, body
        self.options, self.label = options, name
        self.received, self.expected, self.ending, self.seconds = 0, None, "?", 0.0
        self.start()

    def run(self):
        began = time.monotonic()
        try:
            (self.http2 if self.over.endswith("h2") else self.http1)()
        except OSError as error:
            self.ending = type(error).__name__
        self.seconds = time.monotonic() - began

    def allowance(self, began):
        """How many bytes may have been read by now."""
        allowed = int((time.monotonic() - began) * self.options.rate)
        return min(allowed, SILENT_AFTER) if self.options.silent else allowed

    def over_time(self, began):
        limit = self.options.megabytes * 1e6 * 2 / self.options.rate + END_SECONDS_MAX
        return time.monotonic() - began > (SILENT_SECONDS if self.options.silent else limit)

    def http1(self):
        context = self.mirror.context("http/1.1")
        connection = connect(self.mirror.address, receive_buffer=self.options.receive_buffer, context=context, timeout=60)
        head = f"{self.method} {self.path} HTTP/1.1\r\nHost: h\r\nUser-Agent: {self.label}\r\nConnection: close\r\n"
        if self.body:
            head += f"Content-Type: application/x-git-upload-pack-request\r\nContent-Length: {len(self.body)}\r\n"
        connection.sendall(head.encode() + b"\r\n" + (self.body or b""))
        answer = b""
        while b"\r\n\r\n" not in answer:
            part = connection.recv(1024)
            if not part:
                raise ConnectionError
            answer += part
        head, rest = answer.split(b"\r\n\r\n", 1)
        lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
        self.expected = int(lengths[0]) if lengths else None
        self.received, began, tail = len(rest), time.monotonic(), rest
        while not self.over_time(began):
            if self.received == self.expected:
                break
            allowed = self.allowance(began) - self.received
            if allowed <= 0:
                time.sleep(TICK_SECONDS)
                continue
            part = connection.recv(min(allowed, 65_536))
            if not part:
                break
            self.received += len(part)
            tail = (tail + part)[-5:]
        if self.options.silent:
            # What is in the buffers is still there; the end behind it shows that the mirror has cut it.
            connection.settimeout(5)
            try:
                while part := connection.recv(1 << 20):
                    self.received += len(part)
            except TimeoutError:
                self.ending = "still open"
                return
        whole = self.received == self.expected or (self.expected is None and tail == b"0\r\n\r\n")
        self.ending = "whole" if whole else "cut"

    def http2(self):
        window = self.options.rate
        client = Http2(
            self.mirror.address, window, receive_buffer=self.options.receive_buffer, context=self.mirror.context()
        )
        headers = [("user-agent", self.label)]
        if self.body:
            headers.append(("content-type", "application/x-git-upload-pack-request"))
        stream = client.request(self.method, self.path, headers, ends=self.body is None)
        if self.body:
            client.data(stream, self.body, ends=True)
        began, granted = time.monotonic(), window
        while not self.over_time(began) and stream not in client.ended and not client.closed:
            client.pump(TICK_SECONDS)
            more = self.allowance(began) - granted
            if more > 0 and client.received[stream]:
                client.grant(stream, more)
                granted += more
        self.received = client.received[stream]
        if client.closed or stream in client.resets:
            self.ending = "cut"
        else:
            self.ending = "whole" if stream in client.ended else "still open"
        client.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=20)
    parser.add_argument("--rate", type=int, default=20_000)
    parser.add_argument("--receive-buffer", type=int)
    parser.add_argument("--silent", action="store_true")
    options = parser.parse_args()
    length = int(options.megabytes * 1e6)
    with Lab() as lab:
        lab.origin.crate("file", length)
        lab.origin.noisy_index_file("long", min(length, 30_000_000))
        # git packs away a quarter of the other one.
        lab.origin.noisy_index_file("more", length // 3 + 1000)
        lab.origin.serve()
        mirrors = {"": lab.mirror("plain"), "tls ": lab.mirror("tls", tls=True)}
        transfers = []
        for prefix, mirror in mirrors.items():
            download = "/api/v1/crates/file/1.0.0/download"
            # So that it comes from the store.
            mirror.get(download)
            mirror.get("/index/lo/ng/long")
            for over in ("h1", "h2"):
                for what, method, path, body in (
                    ("crate", "GET", download, None),
                    ("index", "GET", "/index/lo/ng/long", None),
                    ("git", "POST", "/git/index/git-upload-pack", clone_request(mirror)),
                ):
                    name = f"{prefix}{over} {what}"
                    transfers.append(Transfer(name, mirror, prefix + over, method, path, body, options))
        for transfer in transfers:
            transfer.join()
        time.sleep(1)
        rows = []
        for transfer in transfers:
            events = [event for event in transfer.mirror.requests() if event.get("user_agent") == transfer.label]
            event = events[-1] if events else {}
            logged = [event.get(field, "-") for field in ("status", "bytes", "cut")]
            expected = length if transfer.expected is None and "git" not in transfer.label else transfer.expected
            seconds = f"{transfer.seconds:.0f}"
            rows.append([transfer.label, transfer.received, expected or "-", seconds, transfer.ending, *logged])
        show(["transfer", "received", "of", "seconds", "ended", "log: status", "bytes", "cut"], rows)


if __name__ == "__main__":
    main()
