"""Kills a mirror at random moments, and checks after each restart that every file that it serves is right.

    kill_loop.py INDEX URL DIRECTORY KILLS MIRROR…

MIRROR is the command to run; the rest of its settings come from the environment. The upstream at INDEX, served at URL, moves
on by small commits all the time. Every third time the mirror starts on an empty disk, so that clones are killed, too. After
each restart: what is served at once is compared with the commit that it says it is from; then the upstream rests, the mirror
catches up, and every file of the index is compared; now and then the git index is cloned and checked as well. Called by
kill_loop.sh. Standard library only.
"""

import http.client
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

from soak import Upstream, blob_id

LIFE_SECONDS_MAX = 2.5
GIVE_UP_SECONDS = 60
CLONE_EVERY = 5


class Mover(threading.Thread):
    """Commits all the time, except while another thread has the lock."""

    def __init__(self, upstream):
        super().__init__(daemon=True)
        self.upstream, self.lock, self.head = upstream, threading.Lock(), None
        self.number = 0

    def run(self):
        while True:
            with self.lock:
                self.number += 1
                self.head, _path = self.upstream.commit(self.number)
            time.sleep(0.01)


class Mirror:
    """One life of the mirror."""

    def __init__(self, command, directory, port):
        self.log = open(os.path.join(directory, "mirror.log"), "ab")
        environment = {**os.environ, "PORT": str(port), "PUBLIC_URL": f"http://127.0.0.1:{port}"}
        self.port = port
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, env=environment)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def wait_until_ready(self):
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                sys.exit("the mirror has ended by itself")
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
                connection.request("GET", "/readyz")
                answer = connection.getresponse()
                report = json.load(answer)
                if answer.status == 200:
                    return connection
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.005)
        sys.exit(f"the mirror did not become ready: {report}")


def tree(upstream, commit):
    """Blob ids by path."""
    listed = upstream.run("ls-tree", "-r", "-z", commit).split(b"\0")
    entries = (entry.split(b"\t") for entry in listed if entry)
    return {path.decode(): meta.split(b" ")[2].decode() for meta, path in entries if b"/" in path}


def get(connection, path):
    connection.request("GET", "/index/" + path)
    answer = connection.getresponse()
    return answer, answer.read()


def check_some(upstream, connection, paths, trees):
    """Reads files of the served commit while the upstream changes."""
    for path in paths:
        answer, body = get(connection, path)
        commit = answer.getheader("x-index-commit")
        if commit not in trees:
            trees[commit] = tree(upstream, commit)
        if answer.status != 200 or blob_id(body) != trees[commit][path]:
            sys.exit(f"{path} at {commit}: {answer.status}")


def check_all(connection, files, commit):
    for path, blob in files.items():
        answer, body = get(connection, path)
        if answer.status != 200 or blob_id(body) != blob or answer.getheader("x-index-commit") != commit:
            sys.exit(f"{path}: {answer.status} {answer.getheader('x-index-commit')} instead of {commit}")


def check_git_index(mirror, directory, upstream, head):
    clone = os.path.join(directory, "clone")
    shutil.rmtree(clone, ignore_errors=True)
    url = f"http://127.0.0.1:{mirror.port}/git/index"
    subprocess.run(["git", "clone", "--quiet", "--bare", url, clone], check=True)
    subprocess.run(["git", "-C", clone, "fsck", "--full", "--strict"], check=True, stderr=subprocess.DEVNULL)
    listed = subprocess.run(["git", "-C", clone, "ls-tree", "-r", "-z", "HEAD"], stdout=subprocess.PIPE, check=True)
    theirs = {line for line in listed.stdout.split(b"\0") if not line.endswith(b"\tconfig.json")}
    ours = {line for line in upstream.run("ls-tree", "-r", "-z", head).split(b"\0") if not line.endswith(b"\tconfig.json")}
    if theirs != ours:
        sys.exit("the git index shows something else than the upstream")


def main():
    index, directory, kills = sys.argv[1], sys.argv[3], int(sys.argv[4])
    os.environ["GIT_REPO_URL"] = sys.argv[2]
    data = os.environ["DATA_DIR"] = os.path.join(directory, "data")
    command, port = sys.argv[5:], int(os.environ["PORT"])
    upstream = Upstream(index)
    mover = Mover(upstream)
    mover.start()
    moments = random.Random(23)
    phases, checked = {}, 0
    for number in range(1, kills + 1):
        if number % 3 == 0:
            shutil.rmtree(data)
        mirror = Mirror(command, directory, port)
        # Most kills come early in a life, when the mirror clones.
        time.sleep(LIFE_SECONDS_MAX * moments.random() ** 2)
        phase = phase_of(mirror)
        phases[phase] = phases.get(phase, 0) + 1
        mirror.kill()

        mirror = Mirror(command, directory, port)
        connection = mirror.wait_until_ready()
        sample = [path.decode() for path in moments.sample(upstream.files, min(100, len(upstream.files)))]
        check_some(upstream, connection, sample, {})
        with mover.lock:
            head = mover.head
            wait_for(connection, head)
            files = tree(upstream, head)
            check_all(connection, files, head)
            checked += len(files)
            if number % CLONE_EVERY == 0:
                check_git_index(mirror, directory, upstream, head)
        mirror.kill()
        left = os.listdir(os.path.join(data, "index"))
        if number % 10 == 0:
            print(f"{number} kills, {checked} files compared; killed while {phases}; on disk: {sorted(left)}", flush=True)
    print(f"{2 * kills} kills in all, {mover.number} commits")


def phase_of(mirror):
    """What the mirror is doing, from its log."""
    try:
        connection = http.client.HTTPConnection("127.0.0.1", mirror.port, timeout=2)
        connection.request("GET", "/readyz")
        return json.load(connection.getresponse())["index"]["phase"]
    except (OSError, http.client.HTTPException):
        return "starting"


def wait_for(connection, commit):
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while time.monotonic() < deadline:
        connection.request("GET", "/readyz")
        if json.load(connection.getresponse())["index"]["commit"] == commit:
            return
        time.sleep(0.005)
    sys.exit(f"the mirror did not follow {commit}")


if __name__ == "__main__":
    main()
