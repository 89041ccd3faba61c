"""Asks for files over 16 connections on loopback and throws the bytes away in the kernel (MSG_TRUNC), so that the server is
the limit: wrk copies all that it gets, 8 kB at a time.

    discarding_client.py PORT PATHS SECONDS

PATHS is a file with a path on each line. Prints a line as one_core.sh wants it: `result`, microseconds, requests, bytes, 0.
"""

import re
import select
import socket
import sys
import time

CONNECTIONS = 16
port, paths, seconds = int(sys.argv[1]), open(sys.argv[2]).read().split(), float(sys.argv[3])
events, left, sockets = select.epoll(), {}, {}
# The kernel writes nothing into it.
nowhere = bytearray(1 << 20)
asked = requests = received = 0


def ask(connection):
    global asked
    path = paths[asked % len(paths)]
    asked += 1
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())


for _ in range(CONNECTIONS):
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setblocking(False)
    number = connection.fileno()
    events.register(number, select.EPOLLIN)
    sockets[number], left[number] = connection, 0
    ask(connection)
began = time.monotonic()
while time.monotonic() - began < seconds:
    for number, _ in events.poll(1):
        connection = sockets[number]
        try:
            if left[number] == 0:
                beginning = connection.recv(2048)
                end = beginning.index(b"\r\n\r\n") + 4
                assert beginning.startswith(b"HTTP/1.1 200 "), beginning
                length = int(re.search(rb"content-length: (\d+)", beginning, re.IGNORECASE).group(1))
                received += len(beginning)
                left[number] = length - (len(beginning) - end)
            if left[number]:
                count = connection.recv_into(nowhere, min(left[number], len(nowhere)), socket.MSG_TRUNC)
                left[number] -= count
                received += count
        except BlockingIOError:
            continue
        if left[number] == 0:
            requests += 1
            ask(connection)
print("result", int((time.monotonic() - began) * 1e6), requests, received, 0)
