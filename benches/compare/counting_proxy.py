"""Passes TCP connections on to a port on loopback, and counts what comes back.

    counting_proxy.py PORT

Prints its own port, then the sum of all bytes received so far whenever a connection ends. Standard library only.
"""

import socket
import sys
import threading

received = 0
lock = threading.Lock()


def pass_on(source, target, counts):
    global received
    while data := source.recv(64 * 1024):
        target.sendall(data)
        if counts:
            with lock:
                received += len(data)
    try:
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass
    if counts:
        with lock:
            print(received, flush=True)


def main():
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        client, _address = listener.accept()
        server = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
        threading.Thread(target=pass_on, args=(client, server, False), daemon=True).start()
        threading.Thread(target=pass_on, args=(server, client, True), daemon=True).start()


if __name__ == "__main__":
    main()
