"""Serves the git repositories below a directory over smart HTTP on loopback, by `git http-backend`.

    git_http_server.py DIRECTORY [PORT]

Prints the port on the first line of standard output; 0, the default, takes a free one. Each request runs in a thread.
Standard library only.
"""

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CHUNK = 64 * 1024


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    directory = "."

    def log_message(self, *_arguments):
        """No log, because writing lines takes time."""

    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.answer()

    def body(self):
        """The request's body in pieces, whether it has a length or is chunked."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while True:
                size = int(self.rfile.readline().split(b";")[0] or b"0", 16)
                if size == 0:
                    while self.rfile.readline() not in (b"\r\n", b"\n", b""):
                        pass
                    return
                yield self.rfile.read(size)
                self.rfile.readline()
        rest = int(self.headers.get("Content-Length") or 0)
        while rest > 0:
            piece = self.rfile.read(min(rest, CHUNK))
            if not piece:
                return
            rest -= len(piece)
            yield piece

    def answer(self):
        path, _, query = self.path.partition("?")
        # git http-backend reads a body without a length to the end of its input.
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_PROJECT_ROOT": self.directory,
            "GIT_HTTP_EXPORT_ALL": "1",
            # The repository can belong to another user.
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "REMOTE_ADDR": self.client_address[0],
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
        }
        for header, variable in (
            ("Git-Protocol", "GIT_PROTOCOL"),
            # git http-backend unpacks gzip itself.
            ("Content-Encoding", "HTTP_CONTENT_ENCODING"),
            ("Content-Length", "CONTENT_LENGTH"),
        ):
            if self.headers.get(header):
                environment[variable] = self.headers[header]
        backend = subprocess.Popen(
            ["git", "http-backend"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        # A separate thread, because the other side can answer before it has read everything.
        feeder = threading.Thread(target=self.feed, args=(backend.stdin,))
        feeder.start()
        try:
            self.relay(backend.stdout)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
            backend.kill()
        finally:
            backend.stdout.close()
            backend.wait()
            # The next request begins after this body.
            feeder.join()

    def feed(self, pipe):
        """Gives the body to git. It is read to its end even if git does not want it: another request may follow."""
        wanted = True
        for piece in self.body():
            try:
                if wanted:
                    pipe.write(piece)
            except BrokenPipeError:
                wanted = False
        try:
            pipe.close()
        except BrokenPipeError:
            pass

    def relay(self, output):
        status, headers = 200, []
        while line := output.readline().decode("latin-1").rstrip("\r\n"):
            name, _, value = line.partition(": ")
            if name.lower() == "status":
                status = int(value.split()[0])
            else:
                headers.append((name, value))
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while piece := output.read1(CHUNK):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")


def main():
    Handler.directory = os.path.abspath(sys.argv[1])
    port = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
