"""Kills a mirror with SIGKILL at random moments while its catalog is built and followed, and checks after each restart that
every answer of the catalog is that of a catalog which was built from nothing.

    catalog_kill.py MIRROR [KILLS [CRATES]]      50 kills, 2000 crates

MIRROR is the program. The upstream is an index that this script makes, with a few states; its branch jumps from one state to
the next, so that the mirror follows. The mirror's log says what the catalog does. Each kill waits for the beginning of a
phase, in turn, and for a random moment after it. What is asked: all pages of the search in three orders, with and without a
text, the front page, and the dependents of many crates. Needs git. Standard library only.
"""

import collections
import hashlib
import http.client
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

STATES = 6
CHANGED = 40
GIVE_UP_SECONDS = 300
# The first words of a phase in the log, and the longest time from there to the kill, in seconds.
PHASES = {
    "building": ("the catalog is being built", 1.5),
    "indexing": ("the catalog gets its indexes", 0.004),
    "renaming": ("the catalog is put in its place", 0.01),
    "following": ("the catalog is being brought up to date", 0.05),
    "checking": ("the catalog is being checked", 0.002),
    "idle": ("the catalog is intact", 1.0),
}


def path_of(name):
    if len(name) < 4:
        return f"{len(name)}/{name}" if len(name) < 3 else f"3/{name[0]}/{name}"
    return f"{name[:2]}/{name[2:4]}/{name}"


def file_of(name, versions, names, chance):
    lines = []
    for number in range(versions):
        on = [{"name": other, "req": "^1"} for other in chance.sample(names, chance.randint(0, 3))]
        checksum = hashlib.sha256(f"{name} {number}".encode()).hexdigest()
        time_of = f"20{chance.randint(15, 25)}-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}T00:00:00Z"
        lines.append(json.dumps({
            "name": name, "vers": f"1.{number}.0", "deps": on, "cksum": checksum, "features": {},
            "yanked": chance.random() < 0.1, "pubtime": time_of}))
    return "".join(line + "\n" for line in lines).encode()


def make_upstream(path, crates):
    """A bare repository; returns the commits of its states, which have no parents."""
    chance = random.Random(7)
    words = ["serde", "tokio", "core", "macro", "sync", "io", "net", "a", "x1"]
    names = sorted({f"{chance.choice(words)}-{chance.choice(words)}{number}" for number in range(crates)})
    files = {name: file_of(name, chance.randint(1, 6), names, chance) for name in names}
    git = ["git", "-C", path]
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=master", path], check=True)
    stream = []
    for state in range(STATES):
        if state:
            for name in chance.sample(sorted(files), CHANGED):
                if chance.random() < 0.2:
                    del files[name]
                else:
                    files[name] = file_of(name, chance.randint(1, 8), names, chance)
        stream.append(b"reset refs/states/%d\ncommit refs/states/%d\ncommitter a <a@example> 1700000000 +0000\ndata 1\nx\n"
                      % (state, state))
        for name, content in files.items():
            stream.append(b"M 100644 inline %s\ndata %d\n%s\n" % (path_of(name).encode(), len(content), content))
        stream.append(b"M 100644 inline config.json\ndata 2\n{}\n")
    subprocess.run(git + ["fast-import", "--quiet"], input=b"".join(stream), check=True)
    listed = subprocess.run(git + ["for-each-ref", "--format=%(objectname)", "refs/states"], stdout=subprocess.PIPE, check=True)
    return listed.stdout.decode().split(), names


class Upstream:
    def __init__(self, path, commits):
        self.path, self.commits, self.at = path, commits, 0
        self.move()

    def move(self):
        self.at = (self.at + 1) % len(self.commits)
        head = self.commits[self.at]
        subprocess.run(["git", "-C", self.path, "update-ref", "refs/heads/master", head], check=True)
        return head

    def head(self):
        return self.commits[self.at]


class Mirror:
    """One life of the mirror."""

    def __init__(self, program, upstream, data):
        self.log_path = data + ".log"
        self.log_begins = os.path.getsize(self.log_path) if os.path.exists(self.log_path) else 0
        log = open(self.log_path, "ab")
        environment = {
            **os.environ, "PORT": "0", "BIND_ADDRESS": "127.0.0.1", "DATA_DIR": data, "GIT_REPO_URL": upstream.path,
            "REFRESH_INTERVAL_SECS": "1", "NO_COLOR": "1",
            "RUST_LOG": "crates_io_mirror=debug,crates_io_mirror::request=off",
        }
        self.process = subprocess.Popen([program], stdout=log, stderr=log, env=environment)
        listening = self.wait_for_line("is listening")
        port = listening.split("net.address=127.0.0.1:")[1].split()[0].strip('"')
        self.port = int(port)

    def lines(self):
        # Unbuffered and short, because a phase can last a few milliseconds.
        with open(self.log_path, "rb", buffering=0) as log:
            log.seek(self.log_begins)
            return log.read().decode(errors="replace").splitlines()

    def phase(self):
        """The last phase in the log."""
        for line in reversed(self.lines()):
            for name, (text, _seconds) in PHASES.items():
                if text in line:
                    return name
            if "the catalog is up to date" in line:
                return "up to date"
        return "starting"

    def wait_for_line(self, text, after=0, meanwhile=lambda: None):
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < deadline:
            for line in self.lines()[after:]:
                if text in line:
                    return line
            if self.process.poll() is not None:
                sys.exit(f"the mirror has ended by itself: {self.log_path}")
            meanwhile()
            time.sleep(0.0003)
        sys.exit(f"the log never said: {text}")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", path, headers={"user-agent": "catalog_kill"})
        answer = connection.getresponse()
        return answer.status, answer.getheader("x-index-commit"), answer.read()

    def wait_for_catalog(self, commit):
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < deadline:
            status, found, _body = self.get("/api/v1/crates?per_page=1")
            if status == 200 and found == commit:
                return
            if self.process.poll() is not None:
                sys.exit(f"the mirror has ended by itself: {self.log_path}")
            time.sleep(0.02)
        sys.exit(f"the catalog never belonged to {commit}: {self.log_path}")


def answers(mirror, commit, names):
    """All answers that are compared, by path."""
    found = {}

    def ask(path):
        status, of, body = mirror.get(path)
        if of != commit:
            sys.exit(f"{path}: answered from {of} instead of {commit}")
        found[path] = (status, body)
        return json.loads(body)

    for query in ["", "&q=serde", "&q=io", "&sort=recent-updates", "&sort=new", "&sort=new&q=net-x1"]:
        page, seen = 1, 0
        while True:
            answer = ask(f"/api/v1/crates?per_page=100&page={page}{query}")
            seen += len(answer["crates"])
            if not answer["crates"] or seen >= answer["meta"]["total"] or page >= 40:
                break
            page += 1
    ask("/api/v1/summary")
    for name in names[:: max(1, len(names) // 150)]:
        ask(f"/api/v1/crates/{name}/reverse_dependencies")
    return found


def main():
    program = os.path.abspath(sys.argv[1])
    kills = int(sys.argv[2]) if len(sys.argv) > 2 else 50
    crates = int(sys.argv[3]) if len(sys.argv) > 3 else 2000
    with tempfile.TemporaryDirectory() as directory:
        commits, names = make_upstream(os.path.join(directory, "upstream"), crates)
        upstream = Upstream(os.path.join(directory, "upstream"), commits)
        expected = {}
        for number in range(len(commits)):
            fresh = Mirror(program, upstream, os.path.join(directory, f"fresh{number}"))
            fresh.wait_for_catalog(upstream.head())
            expected[upstream.head()] = answers(fresh, upstream.head(), names)
            fresh.kill()
            upstream.move()
        print(f"{len(names)} crates, {len(commits)} states, {len(expected[commits[0]])} answers of each", flush=True)
        run(program, upstream, os.path.join(directory, "data"), kills, expected, names)


def run(program, upstream, data, kills, expected, names):
    chance = random.Random(23)
    hit, aimed_at = collections.Counter(), collections.Counter()
    compared = rebuilt = 0
    for number in range(kills):
        aim = list(PHASES)[number % len(PHASES)]
        text, seconds = PHASES[aim]
        if aim in ("building", "indexing", "renaming"):
            shutil.rmtree(os.path.join(data, "catalog"), ignore_errors=True)
        elif chance.random() < 0.5:
            # The restart follows the commits that came in between.
            upstream.move()
        mirror = Mirror(program, upstream, data)
        moved = time.monotonic()

        def move():
            nonlocal moved
            if aim == "following" and time.monotonic() - moved > 2:
                upstream.move()
                moved = time.monotonic()

        mirror.wait_for_line(text, meanwhile=move)
        time.sleep(seconds * chance.random() ** 2)
        mirror.kill()
        aimed_at[aim] += 1
        hit[mirror.phase()] += 1

        mirror = Mirror(program, upstream, data)
        mirror.wait_for_catalog(upstream.head())
        rebuilt += any("is damaged" in line for line in mirror.lines())
        found = answers(mirror, upstream.head(), names)
        if found != expected[upstream.head()]:
            wrong = [path for path in found if found[path] != expected[upstream.head()].get(path)]
            sys.exit(f"kill {number} while {hit}: other answers for {wrong[:5]} at {upstream.head()}")
        compared += len(found)
        # The second kill of the round comes at any moment of this life.
        mirror.kill()
        if number % 10 == 9:
            print(f"{number + 1} kills, {compared} answers compared; in {dict(hit)}", flush=True)
    print(f"aimed at {dict(aimed_at)}; hit {dict(hit)}; found damaged after a kill: {rebuilt}")


if __name__ == "__main__":
    main()
