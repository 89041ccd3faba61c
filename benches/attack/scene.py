"""What the attack scripts have in common: a synthetic index, an upstream for crate files, the mirror, and its memory.

The mirror is the release binary that the variable MIRROR names, by default target/release/crates-io-mirror. All traffic
goes to loopback. Needs git; `openssl` as well where TLS is asked for. Standard library only.
"""

import hashlib
import http.client
import json
import os
import random
import resource
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
COMPARE = os.path.join(ROOT, "benches", "compare")

START_TIME_MAX = 60
STOP_TIME_MAX = 30
SAMPLE_EVERY = 0.02


def line(name, number, digest=None):
    """A line of an index file. The description is text that compresses badly."""
    digest = digest or hashlib.sha256(f"{name} {number}".encode()).hexdigest()
    dependency = {
        "name": f"dependency-{digest[:8]}", "req": "^1.0", "features": ["default"], "optional": False,
        "default_features": True, "target": None, "kind": "normal",
    }
    features = {f"feature-{digest[8:40]}": [], "default": [f"feature-{digest[8:40]}"]}
    entry = {
        "name": name, "vers": f"1.0.{number}", "deps": [dependency], "cksum": digest, "features": features,
        "yanked": False,
    }
    return json.dumps(entry, separators=(",", ":")) + "\n"


def index_path(name):
    """The path of a crate's file in an index."""
    if len(name) <= 2:
        return f"{len(name)}/{name}"
    if len(name) == 3:
        return f"3/{name[0]}/{name}"
    return f"{name[:2]}/{name[2:4]}/{name}"


def index_file(name, length):
    """An index file of this many bytes, or a little more."""
    lines, size = [], 0
    while size < length:
        lines.append(line(name, len(lines)))
        size += len(lines[-1])
    return "".join(lines)


class Site:
    """An index with crates of several kinds, its crate files, and servers for both. A context manager.

    `index_sizes` maps the names of crates to the sizes of their index files, `versions` to their numbers of versions,
    and `crates` to the sizes of their crate files.
    """

    def __init__(self, index_sizes=None, versions=None, crates=None):
        self.directory = tempfile.mkdtemp(prefix="attack-")
        self.started = []
        files = {"config.json": '{"dl":"http://127.0.0.1/","api":"http://127.0.0.1"}\n'}
        for name, length in (index_sizes or {}).items():
            files[index_path(name)] = index_file(name, length)
        for name, count in (versions or {}).items():
            files[index_path(name)] = "".join(line(name, number) for number in range(count))
        for name, length in (crates or {}).items():
            files[index_path(name)] = line(name, 0, self.write_crate(name, length))
        self.write_index(files)

    def write_crate(self, name, length):
        directory = os.path.join(self.directory, "files", "crates", name)
        os.makedirs(directory)
        content = random.Random(name).randbytes(length)
        with open(os.path.join(directory, f"{name}-1.0.0.crate"), "wb") as file:
            file.write(content)
        return hashlib.sha256(content).hexdigest()

    def write_index(self, files):
        repositories = os.path.join(self.directory, "repositories")
        os.makedirs(repositories)
        index = os.path.join(repositories, "index.git")
        subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=master", index], check=True)
        stream = subprocess.Popen(["git", "-C", index, "fast-import", "--quiet"], stdin=subprocess.PIPE)
        out = stream.stdin
        out.write(b"commit refs/heads/master\ncommitter bench <bench@example> 1700000000 +0000\ndata 5\nindex\n")
        for path, text in files.items():
            data = text.encode()
            out.write(b"M 100644 inline %b\ndata %d\n%b\n" % (path.encode(), len(data), data))
        out.close()
        if stream.wait() != 0:
            sys.exit("git fast-import failed")

    def serve(self, script, *arguments):
        """Starts a server that prints its port first, and returns the port."""
        server = subprocess.Popen(
            [sys.executable, script, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self.started.append(server)
        return int(server.stdout.readline())

    def __enter__(self):
        files = os.path.join(self.directory, "files")
        os.makedirs(files, exist_ok=True)
        git_port = self.serve(
            os.path.join(COMPARE, "git_http_server.py"), os.path.join(self.directory, "repositories")
        )
        file_port = self.serve(os.path.join(HERE, "file_server.py"), files)
        self.index_url = f"http://127.0.0.1:{git_port}/index.git"
        self.download_url = f"http://127.0.0.1:{file_port}/crates/{{crate}}/{{crate}}-{{version}}.crate"
        return self

    def __exit__(self, *_error):
        for server in self.started:
            server.kill()
            server.wait()
            server.stdout.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def make_certificate(directory):
    """A certificate that nobody trusts and its key: the paths of both."""
    certificate, key = (os.path.join(directory, name) for name in ("certificate.pem", "key.pem"))
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
         "2", "-subj", "/CN=localhost", "-keyout", key, "-out", certificate],
        check=True, stderr=subprocess.DEVNULL,
    )
    return certificate, key


class Mirror:
    """A mirror of a site, ready. A context manager."""

    def __init__(self, site, mode="cache", tls=False, files_max=None, **settings):
        self.directory = tempfile.mkdtemp(prefix="attacked-")
        self.tls = tls
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        binary = os.environ.get("MIRROR", os.path.join(ROOT, "target", "release", "crates-io-mirror"))
        self.log_path = os.path.join(self.directory, "log")
        environment = {
            "PATH": os.environ["PATH"], "HOME": self.directory, "BIND_ADDRESS": "127.0.0.1", "PORT": str(self.port),
            "DATA_DIR": os.path.join(self.directory, "data"), "GIT_REPO_URL": site.index_url,
            "REFRESH_INTERVAL_SECS": "0", "DOWNLOAD_MODE": mode, "DOWNLOAD_URL": site.download_url,
            "PUBLIC_URL": f"{'https' if tls else 'http'}://127.0.0.1:{self.port}", "LOG_FORMAT": "json",
            **settings,
        }
        if tls:
            environment["TLS_CERT"], environment["TLS_KEY"] = make_certificate(self.directory)
        limit = None
        if files_max:
            def limit():
                resource.setrlimit(resource.RLIMIT_NOFILE, (files_max, files_max))
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [binary], env=environment, stdout=log, stderr=log, preexec_fn=limit
            )

    def __enter__(self):
        deadline = time.monotonic() + START_TIME_MAX
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.get("/readyz")[0] == 200 and self.git_is_ready():
                    return self
            except OSError:
                pass
            time.sleep(0.05)
        log = self.log()
        self.__exit__()
        sys.exit(f"the mirror did not become ready:\n{log[-4000:]}")

    def git_is_ready(self):
        return self.get("/git/index/info/refs?service=git-upload-pack")[0] == 200

    def __exit__(self, *_error):
        self.process.terminate()
        try:
            self.process.wait(STOP_TIME_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def connect(self, source="127.0.0.1", receive_buffer=None, protocol=None, timeout=30):
        """A connection from this source address; over TLS if the mirror speaks it, by this protocol."""
        raw = socket.socket()
        raw.settimeout(timeout)
        if receive_buffer:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.bind((source, 0))
        try:
            raw.connect(("127.0.0.1", self.port))
            return self.over_tls(raw, protocol) if self.tls else raw
        except OSError:
            raw.close()
            raise

    def over_tls(self, raw, protocol):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if protocol:
            context.set_alpn_protocols([protocol])
        return context.wrap_socket(raw)

    def get(self, path, source="127.0.0.1", timeout=30):
        """Status and body of an answer over HTTP/1.1, on a connection of its own."""
        return self.ask("GET", path, source=source, timeout=timeout)

    def ask(self, method, path, body=None, headers=None, source="127.0.0.1", timeout=30):
        """The same for any method."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        connection.sock = self.connect(source, timeout=timeout)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except http.client.HTTPException as error:
            raise OSError(f"no answer: {error!r}") from error
        finally:
            connection.close()

    def store(self, names):
        """Downloads these crates, so that the mirror stores them."""
        with ThreadPoolExecutor(8) as pool:
            for status, _body in pool.map(lambda name: self.get(f"/api/v1/crates/{name}/1.0.0/download"), names):
                if status != 200:
                    sys.exit(f"a download returned {status}")

    def memory(self):
        """The anonymous memory in use, in MB."""
        try:
            with open(f"/proc/{self.process.pid}/status") as status:
                for entry in status:
                    if entry.startswith("RssAnon"):
                        return int(entry.split()[1]) / 1000
        except OSError:
            pass
        return float("nan")

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()

    def events(self):
        """The request events so far."""
        events = []
        for entry in self.log().splitlines():
            try:
                event = json.loads(entry)
            except ValueError:
                continue
            if event.get("target") == "crates_io_mirror::request":
                events.append({**event, **event.get("fields", {})})
        return events


class Watch:
    """The most memory that a mirror used meanwhile. A context manager."""

    def __init__(self, mirror):
        self.mirror, self.peak, self.stop = mirror, mirror.memory(), threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.stop.wait(SAMPLE_EVERY):
            self.peak = max(self.peak, self.mirror.memory())

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_error):
        self.stop.set()
        self.thread.join()


def percentile(values, share):
    """The quantile of the values, or NaN if there are none."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else float("nan")


def counted(counts):
    """Numbers of statuses in one text."""
    return " ".join(f"{count}x{status}" for status, count in sorted(counts.items(), key=str)) or "none"


def raise_file_limit():
    """The scripts open many connections."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
