"""Raw HTTP/2 frames, and a herd of clients that send them and watch what comes back. Standard library only.

Headers are literals without Huffman. The clients forbid the mirror a dynamic table, so that each status can be read
without the state of a connection.
"""

import selectors
import ssl
import struct
import threading
import time
from collections import Counter

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1

SETTING_TABLE_SIZE, SETTING_WINDOW = 1, 4

WINDOW_MAX = 2**31 - 1
FRAME_BYTES_MAX = 16 * 1024

# The entries of the static table.
STATUSES = {8: 200, 9: 204, 10: 206, 11: 304, 12: 400, 13: 404, 14: 500}

# Huffman codes of the digits: value, length.
DIGITS = {
    "0": (0, 5), "1": (1, 5), "2": (2, 5), "3": (0x19, 6), "4": (0x1A, 6), "5": (0x1B, 6), "6": (0x1C, 6),
    "7": (0x1D, 6), "8": (0x1E, 6), "9": (0x1F, 6),
}


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def settings(window):
    return frame(SETTINGS, 0, 0, struct.pack(">HIHI", SETTING_TABLE_SIZE, 0, SETTING_WINDOW, window))


def window_update(stream, count):
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", count))


def integer(first, prefix_bits, value):
    """An integer of HPACK after these first bits."""
    limit = (1 << prefix_bits) - 1
    if value < limit:
        return bytes([first | value])
    out, value = [first | limit], value - limit
    while value >= 128:
        out.append(value % 128 | 128)
        value //= 128
    return bytes([*out, value])


def text(value):
    return integer(0, 7, len(value)) + value


def literal(name, value, indexed=False):
    """A header. `indexed` puts it into the table of the connection."""
    return (b"\x40" if indexed else b"\x00") + text(name) + text(value)


def headers(stream, fields, more=b"", end=True):
    """The frames of a request: its fields, and a block that follows them."""
    block = b"".join(literal(name.encode(), value.encode()) for name, value in fields) + more
    pieces = [block[at : at + FRAME_BYTES_MAX] for at in range(0, len(block), FRAME_BYTES_MAX)]
    frames = []
    for number, piece in enumerate(pieces):
        flags = (END_HEADERS if number == len(pieces) - 1 else 0) | (END_STREAM if end and number == 0 else 0)
        frames.append(frame(HEADERS if number == 0 else 9, flags, stream, piece))
    return b"".join(frames)


def request(stream, path, method="GET", fields=(), more=b"", end=True):
    own = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "127.0.0.1")]
    return headers(stream, [*own, *fields], more, end)


def status_of(block):
    """The status at the beginning of a block of headers, or 0."""
    while block and block[0] & 0xE0 == 0x20:
        # A change of the table's size.
        rest = block[1:]
        if block[0] & 0x1F == 0x1F:
            while rest and rest[0] & 0x80:
                rest = rest[1:]
            rest = rest[1:]
        block = rest
    if not block:
        return 0
    if block[0] & 0x80:
        return STATUSES.get(block[0] & 0x7F, 0)
    if block[0] & 0x0F != 8 or len(block) < 3:
        return 0
    length, value = block[1] & 0x7F, block[2 : 2 + (block[1] & 0x7F)]
    if not block[1] & 0x80:
        return int(value) if value.isdigit() else 0
    bits, digits = "".join(f"{byte:08b}" for byte in value[:length]), ""
    while len(digits) < 3:
        for digit, (code, size) in DIGITS.items():
            if bits[:size] == f"{code:0{size}b}":
                digits, bits = digits + digit, bits[size:]
                break
        else:
            return 0
    return int(digits)


class Client:
    """One connection of a herd."""

    def __init__(self, sock, source):
        self.sock, self.source = sock, source
        self.input, self.output = b"", b""
        self.reads = True
        self.open_streams, self.ended = set(), None


class Herd:
    """Clients that are served by one thread. Reads what comes unless told otherwise; grants no window by itself."""

    def __init__(self):
        self.clients, self.statuses, self.resets = [], Counter(), Counter()
        self.data_bytes, self.refused = 0, 0
        self.ended = Counter()
        self.lock, self.stop = threading.Lock(), threading.Event()
        self.selector = selectors.DefaultSelector()
        # The thread of the herd calls this about once a second.
        self.each_second = None
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def add(self, mirror, output, source="127.0.0.1", protocol="h2", reads=True, receive_buffer=None):
        """Connects, and sends this. `False` if there was no connection."""
        try:
            sock = mirror.connect(source, receive_buffer, protocol)
        except OSError:
            self.refused += 1
            return False
        sock.setblocking(False)
        client = Client(sock, source)
        client.output, client.reads = output, reads
        with self.lock:
            self.clients.append(client)
            self.selector.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE, client)
        return True

    def count(self):
        """How many connections are open."""
        return sum(client.ended is None for client in self.clients)

    def send(self, client, data):
        with self.lock:
            if client.ended is None:
                client.output += data
                self.watch(client)

    def watch(self, client):
        """When everything is sent, the selector waits only for something to read."""
        events = (selectors.EVENT_READ if client.reads else 0) | (selectors.EVENT_WRITE if client.output else 0)
        # A client that does not read and has sent everything is not polled.
        try:
            if events:
                self.selector.modify(client.sock, events, client)
            else:
                self.selector.unregister(client.sock)
        except KeyError:
            self.selector.register(client.sock, events, client)

    def run(self):
        second = time.monotonic() + 1
        while not self.stop.is_set():
            ready = self.selector.select(0.02) if self.clients else time.sleep(0.01) or []
            for key, events in ready:
                with self.lock:
                    self.serve(key.data, events)
            if self.each_second and time.monotonic() >= second:
                second = max(second + 1, time.monotonic())
                self.each_second(self)

    def serve(self, client, events):
        if client.ended is not None:
            return
        try:
            if events & selectors.EVENT_WRITE and client.output:
                sent = client.sock.send(client.output[:262144])
                client.output = client.output[sent:]
                if not client.output:
                    self.watch(client)
            if events & selectors.EVENT_READ and client.reads:
                data = client.sock.recv(262144)
                if not data:
                    raise ConnectionResetError("closed")
                self.take(client, data)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError as error:
            self.end(client, type(error).__name__)

    def take(self, client, data):
        client.input += data
        while len(client.input) >= 9:
            length = int.from_bytes(client.input[:3], "big")
            if len(client.input) < 9 + length:
                return
            kind, flags = client.input[3], client.input[4]
            stream = int.from_bytes(client.input[5:9], "big") & WINDOW_MAX
            payload, client.input = client.input[9 : 9 + length], client.input[9 + length :]
            self.take_frame(client, kind, flags, stream, payload)

    def take_frame(self, client, kind, flags, stream, payload):
        if kind == SETTINGS and not flags & ACK:
            client.output += frame(SETTINGS, ACK, 0)
            self.watch(client)
        elif kind == PING and not flags & ACK:
            client.output += frame(PING, ACK, 0, payload)
            self.watch(client)
        elif kind == HEADERS:
            self.statuses[status_of(payload)] += 1
            client.open_streams.add(stream)
        elif kind == DATA:
            self.data_bytes += len(payload)
        elif kind == RESET:
            self.resets[int.from_bytes(payload, "big")] += 1
        elif kind == GOAWAY:
            self.ended[f"goaway {int.from_bytes(payload[4:8], 'big')}"] += 1
        if (kind in (DATA, HEADERS) and flags & END_STREAM) or kind == RESET:
            client.open_streams.discard(stream)

    def end(self, client, why):
        client.ended = why
        self.ended[why] += 1
        try:
            self.selector.unregister(client.sock)
        except KeyError:
            pass
        client.sock.close()

    def close(self):
        self.stop.set()
        self.thread.join()
        for client in self.clients:
            if client.ended is None:
                client.sock.close()
        self.selector.close()
