"""Adds commits to an index, one after the other, and measures what a mirror needs to follow them.

    refreshes.py INDEX PORT PROCESS REFRESHES

Called by refresh.sh. Standard library only.
"""

import http.client
import json
import os
import random
import statistics
import subprocess
import sys
import time

CRATES_PER_COMMIT = 5
REPORT_AFTER = (0, 50, 100, 200)
GIVE_UP_SECONDS = 120
POLL_SECONDS = 0.25
LINE = '{"name":"%s","vers":"99.%d.0","deps":[],"cksum":"%s","features":{},"yanked":false}\n'


class Index:
    """A bare repository that gets commits."""

    def __init__(self, path):
        self.git = ["git", "-C", path, "-c", "safe.directory=*", "-c", "gc.auto=0"]
        self.branch = self.run("symbolic-ref", "HEAD").strip()
        # Index files are in a directory that is not hidden.
        names = self.run("ls-tree", "-r", "--name-only", "HEAD").splitlines()
        self.files = [name for name in names if "/" in name and not name.startswith(".")]
        # The seed is fixed: two runs change the same crates.
        self.random = random.Random(5)

    def run(self, *arguments, data=None):
        done = subprocess.run(self.git + list(arguments), input=data, stdout=subprocess.PIPE, check=True)
        return done.stdout.decode()

    def commit(self, number):
        """Appends a line to some files, and returns the new commit."""
        stream = [
            f"commit {self.branch}\ncommitter bench <bench@example> {int(time.time())} +0000\n"
            f"data <<END\nrefresh {number}\nEND\nfrom {self.branch}^0\n".encode()
        ]
        for path in self.random.sample(self.files, CRATES_PER_COMMIT):
            old = subprocess.run(self.git + ["cat-file", "blob", f"HEAD:{path}"], stdout=subprocess.PIPE, check=True)
            new = old.stdout + (LINE % (path.rpartition("/")[2], number, "0" * 64)).encode()
            stream.append(b"M 100644 inline %b\ndata %d\n%b\n" % (path.encode(), len(new), new))
        self.run("fast-import", "--quiet", data=b"".join(stream))
        return self.run("rev-parse", self.branch).strip()


def served_commit(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/readyz")
    report = json.load(connection.getresponse())
    connection.close()
    return report["index"]["commit"]


def processor_milliseconds(process):
    with open(f"/proc/{process}/stat") as stat:
        # The name in brackets can contain anything. The text after it is regular.
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def anonymous_kilobytes(process):
    with open(f"/proc/{process}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))


def main():
    index, port, process, refreshes = Index(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    print(f"after   0 refreshes: RssAnon {anonymous_kilobytes(process)} kB", flush=True)
    first = processor_milliseconds(process)
    times = []
    for number in range(1, refreshes + 1):
        before = processor_milliseconds(process)
        commit = index.commit(number)
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while served_commit(port) != commit:
            if time.monotonic() > deadline:
                sys.exit(f"the mirror did not follow to {commit}")
            # Each question takes 0.4 ms of the processor time that is measured.
            time.sleep(POLL_SECONDS)
        times.append(processor_milliseconds(process) - before)
        if number in REPORT_AFTER or number == refreshes:
            print(f"after {number:3} refreshes: RssAnon {anonymous_kilobytes(process)} kB", flush=True)
    total = processor_milliseconds(process) - first
    print(
        f"processor time: {total:.0f} ms for {refreshes} refreshes, {total / refreshes:.1f} ms each; "
        f"median {statistics.median(times):.0f} ms, largest {max(times):.0f} ms"
    )


if __name__ == "__main__":
    main()
