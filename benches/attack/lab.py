"""What the attack scripts share: a mirror on loopback with all that it mirrors, clients that misbehave, and figures.

The scripts start the release binary themselves: `MIRROR`, or `target/release/crates-io-mirror` if it is not set. To
compare two binaries, run a script once with each. Everything stays on loopback. They need python3 and git, and openssl
for a certificate where TLS is measured. Standard library only.

Different source addresses (127.0.0.2, 127.0.0.3, …) make different peers, which only Linux allows without a set-up.
"""

import base64
import hashlib
import http.client
import json
import os
import random
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
COMPARE = os.path.join(ROOT, "benches", "compare")

# Any URL will do: no script follows what the index says about downloads.
PUBLIC_URL = "http://mirror.example"

START_SECONDS_MAX = 120
SEND_SECONDS_MAX = 10


# ---- What is mirrored ----


def index_path(name):
    if len(name) < 4:
        return f"{len(name)}/{name[0]}/{name}" if len(name) == 3 else f"{len(name)}/{name}"
    return f"{name[:2]}/{name[2:4]}/{name}"


def index_line(name, version, checksum):
    line = {"name": name, "vers": version, "deps": [], "cksum": checksum, "features": {}, "yanked": False}
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def noise(seed, length):
    """Bytes that no compression makes shorter, the same for the same arguments."""
    return random.Random(seed).randbytes(length)


class Origin:
    """An index and the crate files that it lists, for a mirror in cache mode."""

    def __init__(self, directory):
        self.directory = directory
        self.index = {"config.json": b"{}\n"}
        self.crates = {}

    def crate(self, name, length):
        """Adds version 1.0.0 of a crate, with a file of so many bytes."""
        content = noise(name, length)
        self.crates[f"/crates/{name}/{name}-1.0.0.crate"] = content
        self.index[index_path(name)] = index_line(name, "1.0.0", hashlib.sha256(content).hexdigest())

    def versions(self, name, count):
        """Adds a crate with so many versions, which have no files."""
        digests = random.Random(name)
        lines = (index_line(name, f"1.{number}.0", digests.randbytes(32).hex()) for number in range(count))
        self.index[index_path(name)] = b"".join(lines)

    def index_file(self, name, length):
        """Adds a crate whose index file has about so many bytes."""
        self.versions(name, max(1, length // len(index_line(name, "1.1000.0", "0" * 64))))

    def noisy_index_file(self, name, length):
        """Adds a crate whose index file has so many bytes, of which git can pack away a quarter."""
        source = random.Random(name)
        first = index_line(name, "1.0.0", source.randbytes(32).hex())
        lines, left = [first], length - len(first)
        while left > 0:
            line = base64.b64encode(source.randbytes(min(left, 40_000) * 3 // 4 + 3))[: min(left, 40_000) - 1] + b"\n"
            lines.append(line)
            left -= len(line)
        self.index[index_path(name)] = b"".join(lines)

    def serve(self):
        """Makes the repository, and serves it and the crate files."""
        repositories = os.path.join(self.directory, "repositories")
        repository = os.path.join(repositories, "index.git")
        os.makedirs(repositories)
        run(["git", "init", "--quiet", "--bare", "--initial-branch=master", repository])
        imports = subprocess.Popen(["git", "-C", repository, "fast-import", "--quiet"], stdin=subprocess.PIPE)
        out = imports.stdin
        out.write(b"commit refs/heads/master\ncommitter attack <attack@example> 1700000000 +0000\ndata 5\nindex\n")
        for path, content in self.index.items():
            out.write(b"M 100644 inline %b\ndata %d\n%b\n" % (path.encode(), len(content), content))
        out.close()
        if imports.wait() != 0:
            raise SystemExit("the index could not be made")
        server = os.path.join(COMPARE, "git_http_server.py")
        self.git_server = subprocess.Popen([sys.executable, server, repositories], stdout=subprocess.PIPE)
        self.git_url = f"http://127.0.0.1:{int(self.git_server.stdout.readline())}/index.git"
        crates = self.crates

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_arguments):
                pass

            def do_GET(self):
                content = crates.get(self.path)
                self.send_response(200 if content else 404)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                self.wfile.write(content or b"")

        self.file_server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.file_server.daemon_threads = True
        # A mirror that is killed cuts its connections, which is no news.
        self.file_server.handle_error = lambda *_: None
        threading.Thread(target=self.file_server.serve_forever, daemon=True).start()
        port = self.file_server.server_address[1]
        self.download_url = f"http://127.0.0.1:{port}/crates/{{crate}}/{{crate}}-{{version}}.crate"

    def stop(self):
        if hasattr(self, "git_server"):
            self.git_server.terminate()
            self.git_server.wait()
        if hasattr(self, "file_server"):
            self.file_server.shutdown()


class Mirror:
    """A running mirror in cache mode; its log is read from a file."""

    def __init__(self, directory, origin, nofile=None, tls=False, settings=()):
        binary = os.environ.get("MIRROR", os.path.join(ROOT, "target", "release", "crates-io-mirror"))
        if not os.access(binary, os.X_OK):
            raise SystemExit(f"{binary} is not there: build it with cargo build --release, or set MIRROR")
        self.log_path = tempfile.mktemp(prefix="log-", dir=directory)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": directory,
            "BIND_ADDRESS": "127.0.0.1",
            "PORT": "0",
            "DATA_DIR": os.path.join(directory, "data"),
            "GIT_REPO_URL": origin.git_url,
            "DOWNLOAD_URL": origin.download_url,
            "DOWNLOAD_MODE": "cache",
            "PUBLIC_URL": PUBLIC_URL,
            "REFRESH_INTERVAL_SECS": "0",
            "LOG_FORMAT": "json",
            **dict(settings),
        }
        self.tls = None
        if tls:
            certificate, key = self.certificate(directory)
            environment.update(TLS_CERT=certificate, TLS_KEY=key)
            self.tls = certificate
        limit = (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (nofile, nofile))) if nofile else None
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [os.path.abspath(binary)], env=environment, stdout=log, stderr=log, cwd=directory, preexec_fn=limit
            )
        self.address = ("127.0.0.1", self.wait_for_port())
        self.wait_until_ready()

    @staticmethod
    def certificate(directory):
        certificate, key = os.path.join(directory, "cert.pem"), os.path.join(directory, "key.pem")
        if not os.path.exists(certificate):
            if not shutil.which("openssl"):
                raise SystemExit("TLS needs a certificate, and openssl to make one")
            command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
            names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
            run([*command.split(), *names, "-keyout", key, "-out", certificate], stderr=subprocess.DEVNULL)
        return certificate, key

    def wait_for_port(self):
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline and self.process.poll() is None:
            for event in self.events():
                if "net.address" in event:
                    return int(event["net.address"].rsplit(":", 1)[1])
            time.sleep(0.02)
        raise SystemExit(f"the mirror does not listen:\n{self.log()}")

    def wait_until_ready(self):
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline and self.process.poll() is None:
            if self.get("/readyz")[0] == 200 and self.get("/git/index/info/refs?service=git-upload-pack")[0] == 200:
                return
            time.sleep(0.05)
        raise SystemExit(f"the mirror does not become ready:\n{self.log()}")

    def context(self, protocol="h2"):
        """What a client needs for TLS, or None without TLS."""
        if not self.tls:
            return None
        context = ssl.create_default_context(cafile=self.tls)
        context.set_alpn_protocols([protocol])
        return context

    def get(self, path, source=None, headers=None, timeout=30):
        """GETs a path on a connection of its own: status or the name of an error, body, seconds."""
        began = time.monotonic()
        source = (source, 0) if source else None
        try:
            if self.tls:
                connection = http.client.HTTPSConnection(
                    *self.address, timeout=timeout, source_address=source, context=self.context("http/1.1")
                )
            else:
                connection = http.client.HTTPConnection(*self.address, timeout=timeout, source_address=source)
            try:
                connection.request("GET", path, headers=headers or {})
                answer = connection.getresponse()
                return answer.status, answer.read(), time.monotonic() - began
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__, b"", time.monotonic() - began

    def anonymous_mb(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1000

    def log(self):
        with open(self.log_path, errors="replace") as log:
            return log.read()

    def events(self):
        for line in self.log().splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                pass

    def requests(self):
        """The request events so far."""
        return [event for event in self.events() if event.get("target") == "crates_io_mirror::request"]

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class Lab:
    """A temporary directory, an origin and the mirrors on it; a context manager that ends all of them."""

    def __enter__(self):
        # So that the clean-up runs.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.directory = tempfile.mkdtemp(prefix="attack-")
        self.origin = Origin(self.directory)
        self.mirrors = []
        return self

    def mirror(self, name="data", **options):
        """Starts a mirror. Those with the same name have the same data, one after the other."""
        directory = os.path.join(self.directory, name)
        os.makedirs(directory, exist_ok=True)
        mirror = Mirror(directory, self.origin, **options)
        self.mirrors.append(mirror)
        return mirror

    def __exit__(self, *_):
        for mirror in self.mirrors:
            mirror.stop()
        self.origin.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


def run(command, **options):
    subprocess.run(command, check=True, **options)


# ---- Clients ----


def connect(address, source=None, receive_buffer=None, context=None, timeout=SEND_SECONDS_MAX):
    """A connection from this source address."""
    connection = socket.socket()
    try:
        connection.settimeout(timeout)
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source:
            # The port is chosen when the connection is made, so that many connections can share one.
            connection.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
            connection.bind((source, 0))
        connection.connect(address)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return context.wrap_socket(connection, server_hostname="localhost") if context else connection
    except BaseException:
        connection.close()
        raise


DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE = 1, 4
# :status by index of HPACK's static table.
STATUSES = {8: 200, 9: 204, 10: 206, 11: 304, 12: 400, 13: 404, 14: 500}


class Http2:
    """A client of HTTP/2 made of raw frames, which keeps to no rule that it is not told to keep."""

    def __init__(self, address, window=1, **options):
        self.connection = connect(address, **options)
        self.authority = f"{address[0]}:{address[1]}".encode()
        self.scheme = 0x87 if options.get("context") else 0x86
        self.next_stream = 1
        self.buffer = b""
        self.statuses, self.resets = {}, {}
        self.received, self.ended = Counter(), set()
        self.closed = False
        # Without a dynamic table, each status stands in its own answer, where it can be read without state.
        settings = b"".join(
            number.to_bytes(2, "big") + value.to_bytes(4, "big")
            for number, value in ((HEADER_TABLE_SIZE, 0), (INITIAL_WINDOW_SIZE, window))
        )
        self.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, settings))

    def send(self, data):
        if self.closed:
            return
        try:
            self.connection.settimeout(SEND_SECONDS_MAX)
            self.connection.sendall(data)
        except OSError:
            self.closed = True

    def request(self, method, path, headers=(), block=b"", ends=True):
        """Sends the head of a request, and returns its stream. `block` is HPACK to be added."""
        stream, self.next_stream = self.next_stream, self.next_stream + 2
        encoded = bytes([0x83 if method == "POST" else 0x82, self.scheme]) + b"\x04" + text(path) + b"\x01"
        encoded += text(self.authority)
        for name, value in headers:
            encoded += b"\x00" + text(name) + text(value)
        self.send(frame(HEADERS, END_HEADERS | (END_STREAM if ends else 0), stream, encoded + block))
        return stream

    def data(self, stream, data, ends=False):
        for begin in range(0, max(1, len(data)), 16_384):
            part = data[begin : begin + 16_384]
            last = begin + 16_384 >= len(data)
            self.send(frame(DATA, END_STREAM if ends and last else 0, stream, part))

    def grant(self, stream, count):
        """Lets the server send more on a stream, and as much more on the connection."""
        for number in (0, stream):
            self.send(frame(WINDOW_UPDATE, 0, number, count.to_bytes(4, "big")))

    def pump(self, seconds):
        """Reads frames for so long, or until the connection is closed."""
        deadline = time.monotonic() + seconds
        while not self.closed and (left := deadline - time.monotonic()) > 0:
            try:
                self.connection.settimeout(max(left, 0.001))
                data = self.connection.recv(65_536)
            except (TimeoutError, ssl.SSLWantReadError):
                return
            except OSError:
                data = b""
            if not data:
                self.closed = True
                return
            self.buffer += data
            self.read_frames()

    def read_frames(self):
        buffer, at = self.buffer, 0
        while len(buffer) - at >= 9:
            length = int.from_bytes(buffer[at : at + 3], "big")
            kind, flags = buffer[at + 3], buffer[at + 4]
            stream = int.from_bytes(buffer[at + 5 : at + 9], "big") & 0x7FFFFFFF
            if len(buffer) - at < 9 + length:
                break
            self.take(kind, flags, stream, buffer[at + 9 : at + 9 + length])
            at += 9 + length
        self.buffer = buffer[at:]

    def take(self, kind, flags, stream, payload):
        if kind == DATA:
            self.received[stream] += len(payload)
        elif kind == HEADERS and stream not in self.statuses:
            self.statuses[stream] = status_in(payload)
        elif kind == RST_STREAM:
            self.resets[stream] = int.from_bytes(payload, "big")
            self.ended.add(stream)
        elif kind == SETTINGS and not flags & ACK:
            self.send(frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            self.send(frame(PING, ACK, 0, payload))
        if kind in (DATA, HEADERS) and flags & END_STREAM:
            self.ended.add(stream)

    def outcome(self, stream):
        """What came of a request, in a word."""
        if stream in self.statuses:
            # A status of a stream that was reset afterwards is not the whole truth.
            return f"{self.statuses[stream]}{'-reset' if stream in self.resets else ''}"
        if stream in self.resets:
            return "reset"
        return "closed" if self.closed else "none"

    def close(self):
        self.closed = True
        self.connection.close()


def frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def text(value):
    """A text in HPACK, without Huffman."""
    value = value.encode() if isinstance(value, str) else value
    length, encoded = len(value), b""
    if length < 127:
        return bytes([length]) + value
    length -= 127
    encoded = b"\x7f"
    while length >= 128:
        encoded += bytes([length % 128 + 128])
        length //= 128
    return encoded + bytes([length]) + value


def status_in(block):
    """The status in the head of an answer, in which it stands first."""
    at = 0
    while at < len(block) and block[at] & 0xE0 == 0x20:  # a new size of the dynamic table
        more = block[at] & 0x1F == 0x1F
        at += 1
        while more and at < len(block):
            more = block[at] & 0x80
            at += 1
    first, rest = block[at], block[at + 1 :]
    if first & 0x80:
        return STATUSES.get(first & 0x7F, 0)
    # A literal, three digits, with Huffman's code or without.
    value = rest[1 : 1 + (rest[0] & 0x7F)]
    if not rest[0] & 0x80:
        return int(value)
    bits, digits = "".join(f"{byte:08b}" for byte in value), ""
    while len(digits) < 3:
        # 0, 1 and 2 have five bits, 3 to 9 six: 011001 to 011111.
        if int(bits[:5], 2) <= 2:
            digits, bits = digits + str(int(bits[:5], 2)), bits[5:]
        else:
            digits, bits = digits + str(int(bits[:6], 2) - 0b011001 + 3), bits[6:]
    return int(digits)


class Asker(threading.Thread):
    """A well-behaved peer that requests paths again and again, and remembers how long that took."""

    def __init__(self, mirror, paths, source, timeout=30, pause=0.05):
        super().__init__(daemon=True)
        self.mirror, self.paths, self.source, self.timeout, self.pause = mirror, paths, source, timeout, pause
        self.results = {name: [] for name in paths}
        self.ends = threading.Event()
        self.start()

    def run(self):
        while not self.ends.is_set():
            for name, path in self.paths.items():
                path = path() if callable(path) else path
                status, _body, seconds = self.mirror.get(path, self.source, timeout=self.timeout)
                self.results[name].append((status, seconds))
                self.ends.wait(self.pause)

    def stop(self):
        self.ends.set()
        self.join(self.timeout + 5)
        return self.results


# ---- Figures ----


class MemoryWatch(threading.Thread):
    """Looks at the anonymous memory of a mirror, and remembers the most."""

    def __init__(self, mirror):
        super().__init__(daemon=True)
        self.mirror, self.peak, self.ends = mirror, 0.0, threading.Event()
        self.start()

    def run(self):
        while not self.ends.wait(0.02):
            try:
                self.peak = max(self.peak, self.mirror.anonymous_mb())
            except (OSError, StopIteration):
                return

    def stop(self):
        self.ends.set()
        self.join()
        return self.peak


def counted(outcomes):
    """Outcomes and how often each was, in a few words."""
    return " ".join(f"{outcome}:{count}" for outcome, count in sorted(Counter(map(str, outcomes)).items()))


def percentile(values, part):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * part))] if values else float("nan")


def times_row(name, results):
    """A row of a table: how many requests, seconds (p50, p99, most), statuses."""
    seconds = [seconds for _status, seconds in results]
    shown = [f"{value:.3f}" for value in (percentile(seconds, 0.5), percentile(seconds, 0.99), max(seconds, default=0))]
    return [name, len(results), *shown, counted(status for status, _seconds in results)]


TIMES_HEAD = ["request", "count", "p50 s", "p99 s", "max s", "statuses"]


def show(head, rows):
    """Prints a table."""
    rows = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip(), flush=True)
    print(flush=True)
