"""Downloads one file many times at once, checks each, and says how that went.

    many_downloads.py PORT PATH CLIENTS SLOW BYTES_PER_SECOND SHA256

SLOW of the CLIENTS take so many bytes a second and have a small receive buffer, so that what they do not take waits at the
server. Like cargo, a client tries again up to three times after a 503, when Retry-After says. Prints one line: clients
that got the right bytes, tries that were answered with 503, the seconds until the first byte (the last client's, waiting
included), until the last fast client was done and until the last slow one was. Fails if anybody did not get the right
bytes. Standard library only.
"""

import hashlib
import socket
import sys
import threading
import time

TRIES_MAX = 4
PART = 256 * 1024
PART_OF_SLOW = 64 * 1024
# A mirror that sends nothing for longer hangs.
SILENCE_SECONDS = 120


class Client(threading.Thread):
    def __init__(self, port, path, pace, begin):
        super().__init__(daemon=True)
        self.port, self.path, self.pace, self.begin = port, path, pace, begin
        self.digest, self.refused, self.error = None, 0, None
        self.first = self.done = 0.0

    def run(self):
        self.begin.wait()
        try:
            for _ in range(TRIES_MAX):
                pause = self.try_once()
                if pause is None:
                    break
                self.refused += 1
                time.sleep(pause)
        except (OSError, ValueError) as error:
            self.error = error
        self.done = time.monotonic()

    def try_once(self):
        """Returns the pause before the next try, or None when there is an answer."""
        part = PART_OF_SLOW if self.pace else PART
        with socket.socket() as connection:
            if self.pace:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, part)
            connection.settimeout(SILENCE_SECONDS)
            connection.connect(("127.0.0.1", self.port))
            connection.sendall(f"GET {self.path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            head = b""
            while b"\r\n\r\n" not in head:
                more = connection.recv(4096)
                if not more:
                    raise ValueError("the connection was closed")
                head += more
            head, body = head.split(b"\r\n\r\n", 1)
            lines = head.decode().split("\r\n")
            headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines[1:])}
            status = int(lines[0].split()[1])
            if status == 503:
                return int(headers.get("retry-after", 1))
            if status != 200:
                raise ValueError(lines[0])
            self.first = began = time.monotonic()
            self.receive(connection, body, int(headers["content-length"]), part, began)
        return None

    def receive(self, connection, body, length, part, began):
        digest, received = hashlib.sha256(body), len(body)
        buffer = memoryview(bytearray(part))
        while received < length:
            count = connection.recv_into(buffer)
            if count == 0:
                raise ValueError(f"{received} of {length} bytes came")
            digest.update(buffer[:count])
            received += count
            if self.pace:
                time.sleep(max(0, began + received / self.pace - time.monotonic()))
        self.digest = digest.hexdigest()


def main():
    port, path, clients, slow, pace, expected = sys.argv[1:]
    clients, slow = int(clients), int(slow)
    begin = threading.Event()
    all_clients = [Client(int(port), path, float(pace) if n < slow else 0, begin) for n in range(clients)]
    for client in all_clients:
        client.start()
    began = time.monotonic()
    begin.set()
    for client in all_clients:
        client.join()
    right = sum(client.digest == expected for client in all_clients)
    first = max(client.first for client in all_clients) - began
    done = [max((client.done for client in some), default=began) - began for some in (all_clients[slow:], all_clients[:slow])]
    print(right, sum(client.refused for client in all_clients), f"{first:.2f} {done[0]:.2f} {done[1]:.2f}")
    if right != clients:
        for client in all_clients:
            if client.digest != expected:
                print(client.error or "wrong bytes", file=sys.stderr)
        sys.exit(1)


main()
