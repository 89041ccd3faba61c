"""Adds thousands of commits to an index while clients read from a mirror of it, and checks every answer.

    soak.py INDEX PORT PROCESS DATA_DIR REFRESHES

Each commit changes 1 to 5 crates and is waited for, so that each is a refresh of its own. Meanwhile two clients read index
files and compare them with their ETag (the blob id), and one fetches the git index again and again, with a clone of its
own now and then. Prints what there is of packs, loose objects, disk and memory on the way, and the slowest requests.
Called by soak.sh. Standard library only.
"""

import hashlib
import http.client
import os
import random
import subprocess
import sys
import tempfile
import threading
import time

HOT_FILES = 3000
REPORTS = 10
GIVE_UP_SECONDS = 120
FULL_CLONES = 3
GIT_PAUSE_SECONDS = 1.0
LINE = b'{"name":"%b","vers":"99.%d.0","deps":[],"cksum":"%b","features":{},"yanked":false,"pubtime":"%b"}\n'


def blob_id(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Upstream:
    """A bare repository that gets commits through one fast-import."""

    def __init__(self, path):
        self.git = ["git", "-C", path, "-c", "safe.directory=*", "-c", "gc.auto=0"]
        self.branch = self.run("symbolic-ref", "HEAD").decode().strip()
        names = self.run("ls-tree", "-r", "-z", "--name-only", "HEAD").split(b"\0")
        self.files = [name for name in names if b"/" in name and not name.startswith(b".")]
        # The seed is fixed: two runs change the same crates.
        self.random = random.Random(11)
        hot = self.random.sample(self.files, min(HOT_FILES, len(self.files)))
        self.content = self.read(hot)
        self.importer = subprocess.Popen(
            self.git + ["fast-import", "--quiet", "--force"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.parent = b"%b^0" % self.branch.encode()

    def run(self, *arguments):
        return subprocess.run(self.git + list(arguments), stdout=subprocess.PIPE, check=True).stdout

    def read(self, paths):
        names = b"".join(b"HEAD:%b\n" % path for path in paths)
        done = subprocess.run(self.git + ["cat-file", "--batch"], input=names, stdout=subprocess.PIPE, check=True).stdout
        content, at = {}, 0
        for path in paths:
            end = done.index(b"\n", at)
            length = int(done[at:end].split(b" ")[2])
            content[path] = done[end + 1 : end + 1 + length]
            at = end + 2 + length
        return content

    def commit(self, number):
        """Changes some files, and returns the new commit and one of the files."""
        changed = self.random.sample(list(self.content), self.random.randint(1, 5))
        stream = [
            b"commit %b\nmark :1\ncommitter soak <soak@example> %d +0000\ndata <<END\nrefresh %d\nEND\nfrom %b\n"
            % (self.branch.encode(), int(time.time()), number, self.parent)
        ]
        for path in changed:
            name = path.rpartition(b"/")[2]
            published = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()).encode()
            self.content[path] += LINE % (name, number, hashlib.sha256(b"%d" % number).hexdigest().encode(), published)
            stream.append(b"M 100644 inline %b\ndata %d\n%b\n" % (path, len(self.content[path]), self.content[path]))
        stream.append(b"checkpoint\nget-mark :1\n")
        self.importer.stdin.write(b"".join(stream))
        self.importer.stdin.flush()
        commit = self.importer.stdout.readline().strip()
        self.parent = commit
        # Each commit names its parent by id, because a checkpoint forgets the branch.
        if number % 500 == 0:
            self.run("repack", "-d", "-q")
        return commit.decode(), changed[0]


class Reader(threading.Thread):
    """Reads index files, and counts them."""

    def __init__(self, port, files, stop, seed):
        super().__init__(daemon=True)
        self.port, self.files, self.stop = port, files, stop
        self.random = random.Random(seed)
        self.seconds, self.failures = [], []

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        while not self.stop.is_set():
            path = self.random.choice(self.files)
            began = time.perf_counter()
            try:
                connection.request("GET", "/index/" + path.decode())
                answer = connection.getresponse()
                body = answer.read()
                self.seconds.append(time.perf_counter() - began)
                if answer.status != 200 or answer.getheader("etag") != f'"{blob_id(body)}"':
                    self.failures.append(f"{answer.status} {path}")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{error!r} {path}")
                connection.close()
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)


class GitReader(threading.Thread):
    """Fetches the git index, and counts the fetches."""

    def __init__(self, port, directory, stop, clones_at):
        super().__init__(daemon=True)
        self.url, self.directory, self.stop = f"http://127.0.0.1:{port}/git/index", directory, stop
        self.seconds, self.failures, self.clones = [], [], []
        # Set whenever a full clone is wanted.
        self.clones_at = clones_at

    def git(self, *arguments):
        began = time.perf_counter()
        done = subprocess.run(
            ["git", "-c", "gc.auto=0", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        if done.returncode != 0:
            self.failures.append(done.stdout.decode(errors="replace").strip())
        return time.perf_counter() - began

    def run(self):
        mine = os.path.join(self.directory, "mine")
        self.clones.append(self.git("clone", "--quiet", "--bare", self.url, mine))
        number = 0
        while not self.stop.is_set():
            self.seconds.append(self.git("-C", mine, "fetch", "--quiet", "origin", "+HEAD:master"))
            if self.clones_at.is_set():
                self.clones_at.clear()
                number += 1
                fresh = os.path.join(self.directory, f"fresh-{number}")
                self.clones.append(self.git("clone", "--quiet", "--bare", "--depth", "1", self.url, fresh))
                subprocess.run(["rm", "-rf", fresh], check=False)
            self.stop.wait(GIT_PAUSE_SECONDS)


def of_status(process, name):
    with open(f"/proc/{process}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name + ":"))


def on_disk(data):
    packs = loose = size = clones = 0
    for directory, names, files in os.walk(os.path.join(data, "index")):
        base = os.path.basename(directory)
        clones += sum(name.startswith("clone-") for name in names) if base == "index" else 0
        packs += sum(name.endswith(".pack") for name in files)
        loose += len(files) if len(base) == 2 and "objects" in directory else 0
        for name in files:
            try:
                size += os.lstat(os.path.join(directory, name)).st_blocks * 512
            except FileNotFoundError:
                pass
    return packs, loose, size, clones


def report(number, process, data):
    packs, loose, size, clones = on_disk(data)
    print(
        f"after {number:6} refreshes: {packs:4} packs, {loose:4} loose objects, {size / 1e6:7.1f} MB on disk "
        f"({clones} clone(s)), RssAnon {of_status(process, 'RssAnon') / 1000:6.1f} MB, open files {len(os.listdir(f'/proc/{process}/fd'))}",
        flush=True,
    )


def wait_for(connection, path, commit):
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while time.monotonic() < deadline:
        connection.request("HEAD", "/index/" + path.decode())
        answer = connection.getresponse()
        answer.read()
        if answer.getheader("x-index-commit") == commit:
            return answer.getheader("etag")
        time.sleep(0.002)
    sys.exit(f"the mirror did not follow {commit}")


def main():
    index, port, process, data, refreshes = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5])
    upstream = Upstream(index)
    stop, clone_now = threading.Event(), threading.Event()
    readers = [Reader(port, upstream.files, stop, 1), Reader(port, list(upstream.content), stop, 2)]
    with tempfile.TemporaryDirectory() as directory:
        git = GitReader(port, directory, stop, clone_now)
        for thread in [*readers, git]:
            thread.start()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        report(0, process, data)
        began, wrong, largest_anon = time.monotonic(), 0, 0
        for number in range(1, refreshes + 1):
            commit, path = upstream.commit(number)
            tag = wait_for(connection, path, commit)
            wrong += tag != f'"{blob_id(upstream.content[path])}"'
            largest_anon = max(largest_anon, of_status(process, "RssAnon"))
            if number % (refreshes // FULL_CLONES) == refreshes // FULL_CLONES // 2:
                clone_now.set()
            if number % max(1, refreshes // REPORTS) == 0:
                report(number, process, data)
        elapsed = time.monotonic() - began
        stop.set()
        for thread in [*readers, git]:
            thread.join()
    print(f"{refreshes} refreshes in {elapsed:.0f} s; largest RssAnon seen {largest_anon / 1000:.1f} MB")
    seconds = sorted(second for reader in readers for second in reader.seconds)
    half = [second for reader in readers for second in reader.seconds[: len(reader.seconds) // 2]]
    rest = [second for reader in readers for second in reader.seconds[len(reader.seconds) // 2 :]]
    print(
        f"index files: {len(seconds)} requests, median {seconds[len(seconds) // 2] * 1e3:.2f} ms, "
        f"99.9 % {seconds[len(seconds) * 999 // 1000] * 1e3:.1f} ms, "
        f"slowest {max(half) * 1e3:.0f} ms in the first half, {max(rest) * 1e3:.0f} ms in the second"
    )
    fetches = sorted(git.seconds)
    print(
        f"git: {len(fetches)} fetches, median {fetches[len(fetches) // 2] * 1e3:.0f} ms, slowest {fetches[-1] * 1e3:.0f} ms; "
        f"{len(git.clones)} clones, slowest {max(git.clones):.1f} s"
    )
    failures = [failure for thread in [*readers, git] for failure in thread.failures]
    print(f"failed requests: {len(failures)}; commits that were not served right: {wrong}")
    if failures or wrong:
        sys.exit("\n".join(failures[:20]) or "wrong content")


if __name__ == "__main__":
    main()
