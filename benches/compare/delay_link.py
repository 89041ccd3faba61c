"""Links two network namespaces by a slow wire: every packet arrives a fixed number of milliseconds after it was sent.

    delay_link.py NAMESPACE_A NAMESPACE_B MILLISECONDS

A has the address 10.0.0.1 on it, B 10.0.0.2. Prints "up" when both can send, and carries packets until it is ended; the
interfaces go with it. Needs root and /dev/net/tun.

It does what `tc qdisc add … netem delay` does, for kernels that are built without it. Packets are delayed, not streams: what
connecting, TLS and the slow start of TCP cost is as on a real way of this length. Its bandwidth is what this program
manages, a few hundred megabits a second. Standard library only.
"""

import collections
import fcntl
import os
import select
import struct
import subprocess
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
PACKET_BYTES_MAX = 2048
# A burst of the largest window must fit, because other packets are lost.
QUEUE_PACKETS = 20_000


def end(namespace, address, name):
    """Makes one end of the wire; its file hands over and takes packets."""
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH14x", name.encode(), IFF_TUN | IFF_NO_PI))
    # The interface keeps its file when it moves to another namespace.
    ip = ["ip", "-netns", namespace]
    for command in (
        ["ip", "link", "set", name, "netns", namespace],
        ip + ["link", "set", "lo", "up"],
        ip + ["address", "add", f"{address}/24", "dev", name],
        ip + ["link", "set", name, "mtu", "1500", "txqueuelen", str(QUEUE_PACKETS), "up"],
    ):
        subprocess.run(command, check=True)
    return file


def carry(one, other, delay):
    """Passes packets on in order, each after its delay."""
    # The target of the packets, and the packets on their way, the oldest first.
    way = {one: (other, collections.deque()), other: (one, collections.deque())}
    while True:
        due = [queue[0][0] for _, queue in way.values() if queue]
        wait = max(0, min(due) - time.monotonic()) if due else None
        for source in select.select([one, other], [], [], wait)[0]:
            queue = way[source][1]
            try:
                while True:
                    packet = os.read(source, PACKET_BYTES_MAX)
                    queue.append((time.monotonic() + delay, packet))
            except BlockingIOError:
                pass
        now = time.monotonic()
        for target, queue in way.values():
            while queue and queue[0][0] <= now:
                os.write(target, queue.popleft()[1])


def main():
    namespaces, delay = sys.argv[1:3], float(sys.argv[3]) / 1000
    ends = [
        end(namespace, f"10.0.0.{number}", f"delay{os.getpid()}{letter}")
        for number, (namespace, letter) in enumerate(zip(namespaces, "ab"), 1)
    ]
    print("up", flush=True)
    carry(*ends, delay)


if __name__ == "__main__":
    main()
